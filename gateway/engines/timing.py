"""How long an engine waits for what."""

import msgspec


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. `grace`: how long gateways may still send to a withdrawn version (they learn of it within 2 s).
    `drain`: how long the answers that a version has begun may take once it is no longer wanted; `stop`: the same where
    the engine itself ends. `hang`: a worker that owes an answer and says nothing for so long is ended; the longest
    prompt takes less."""

    tick: float = 0.5
    grace: float = 3.0
    drain: float = 600.0
    stop: float = 30.0
    hang: float = 120.0
    first_backoff: float = 1.0
    longest_backoff: float = 60.0
    steady: float = 60.0
