"""What scrubbing gives, and what it must know to scrub more of an exchange that was scrubbed before."""

from typing import Any, Protocol

import msgspec

from router import Events


class Beside(msgspec.Struct, frozen=True):
    """A scrubbed record, beside which more of its conversation is to be scrubbed. `values`: its texts, in which nobody
    else's surrogate may stand. `drawn`: which surrogates it has: by a keyed digest of each thing that one stands for,
    the number of the draw; None where that isn't known, then each thing has its first."""

    values: tuple[Any, ...]
    drawn: dict[str, int] | None = None


class Scrubbed(msgspec.Struct, frozen=True):
    """`values`: as they came, but for what was replaced. `entities`: how often each kind was. `unread`: how many texts
    the models didn't read, for their language. `memorised`: by position of a value that was to be compared with the
    first, how often each kind stands in it that doesn't stand there. `pairs`: what stands for what, surrogate ->
    original, each as it is written. `drawn`: see Beside."""

    values: list[Any]
    entities: dict[str, int]
    unread: int = 0
    memorised: dict[int, dict[str, int]] = {}
    pairs: dict[str, str] = {}
    drawn: dict[str, int] = {}

    def tell(self, events: Events, route: str) -> None:
        """Emit what was replaced, and what the models left unread."""
        for entity, count in self.entities.items():
            events.emit("collector.scrubbed", entity=entity, count=count)
        if self.unread:
            events.emit("collector.language_unread", route=route, count=self.unread)


class Pool(Protocol):
    """Where texts are scrubbed; collector.scrub_pool.ScrubPool is the real one."""

    async def scrub(
        self,
        values: list[Any],
        *,
        route: str,
        cluster: str,
        untouchable: frozenset[str] = frozenset(),
        compared: frozenset[int] = frozenset(),
        beside: Beside | None = None,
    ) -> Scrubbed:
        """Raises ScrubError; never returns unscrubbed text."""
