"""The state of one route's rollout: a frozen value that a fold over the evidence log produces, and its encoding."""

from typing import Literal

import msgspec

from router.errors import RouterError
from router.registry import Stage
from router.sequential import Cusum, Mixture
from router.sequential.intervals import Interval
from router.sequential.outcomes import Baseline
from router.sequential.quality import Spread
from router.sequential.selective import Selective
from router.sequential.slo import Block

SCHEMA = 4

Stream = Literal["quality", "errors", "slo"]


class Probe(msgspec.Struct, frozen=True):
    """The capacity probe before a step: the challenger is asked besides, at that step's rate. `seconds`: since it
    began; `slo`: the SLO test over all of its answers meanwhile, served or not; `broken`: their e-detector."""

    fraction: float
    seconds: float = 0.0
    block: Block = Block()
    slo: Mixture = Mixture()
    broken: Cusum = Cusum()


class Trial(msgspec.Struct, frozen=True):
    """The challenger's tests. Quality and paired latency run in shadow; the SLO test is new at each step; the error
    test runs over all steps. A test that has passed stays passed: it is a stopping time of its martingale.

    `alpha`: what this version may spend. `spread`: what the quality test's bets are made of. `interval`: of the mean
    difference, for people alone.
    """

    alpha: float = 0.05
    quality: Mixture = Mixture()
    spread: Spread = Spread()
    inferior: Mixture = Mixture()
    latency: Mixture = Mixture()
    errors: Mixture = Mixture()
    slo: Mixture = Mixture()
    interval: Interval = Interval()
    pairs: int = 0
    lost: float = 0.0  # sum of -D over the pairs
    requests: int = 0  # served by the student at this step
    dwell: float = 0.0  # seconds at this step
    probe: Probe | None = None


class Level(msgspec.Struct, frozen=True):
    """A stream against the version's own level. `mean`: the harm (lost score, share of failures or of slow answers)
    at which it was promoted; while it is None it is being learnt, from `n` values so far with the sum `total`.
    `worse` and `warning` see only what comes after it is known, so that to them it is a constant."""

    mean: float | None = None
    n: int = 0
    total: float = 0.0
    worse: Cusum = Cusum()
    warning: Cusum = Cusum()
    warned: bool = False


class Guard(msgspec.Struct, frozen=True):
    """The e-detectors of a version in shadow, canary or live: two a stream, below the margin and below its level.

    `alpha`: what its thresholds' tests may spend. `threshold`: of confidence, in force since the last decision; None
    where it serves whole, or not at all. `certified`: by the tests in `selective`, not by an operator alone.
    """

    alpha: float = 0.05

    quality: Cusum = Cusum()
    errors: Cusum = Cusum()
    slo: Cusum = Cusum()
    outcomes: Cusum = Cusum()
    baseline: Baseline = Baseline()
    selective: Selective | None = None
    block: Block = Block()
    levels: dict[Stream, Level] = {}
    since: int = 0  # the revision at which it was first watched
    threshold: float | None = None
    certified: bool = False
    expected_pairs: float = 0.0  # since the last pair, had all gone well
    silence: float = 0.0  # seconds since the last pair
    served: float = 0.0  # seconds as the live version


class VersionState(msgspec.Struct, frozen=True):
    """Where one version stands. `since`: the rollout revision at which it came into service. `levels`: its own, kept
    while it is out of service, for whoever promotes it by hand. `thresholds`: of confidence, falling.
    `shares`: of alpha, one a threshold.
    """

    stage: Stage
    admitted: bool = False  # a CANDIDATE event came: the gate passed, or was overridden
    ready: bool = False
    since: int = 0
    levels: dict[Stream, float] = {}
    thresholds: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()


class RouteState(msgspec.Struct, frozen=True):
    """All that the fold knows of a route. `now`: the last tick, Unix seconds. `tests`: trials begun, by
    versions that entered shadow and by other policies. `paused_by`, `pinned_by`: who and why."""

    route: str
    schema: int = SCHEMA
    policy: str | None = None  # RoutePolicy as JSON
    revision: int = 0
    now: float = 0.0
    versions: dict[str, VersionState] = {}  # in the order of arrival
    live: str | None = None
    challenger: str | None = None
    step: int = 0
    tests: int = 0
    paused: bool = False
    paused_by: dict[str, str] = {}
    pinned: str | None = None
    pinned_by: dict[str, str] = {}
    trial: Trial = Trial()
    guards: dict[str, Guard] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[RouteState] = msgspec.msgpack.Decoder(RouteState)


def initial(route: str) -> RouteState:
    """Before the first record."""
    return RouteState(route)


def encode(state: RouteState) -> bytes:
    """For the registry's checkpoint."""
    return _encoder.encode(state)


def decode(data: bytes) -> RouteState:
    """Inverse of encode. Raises RouterError for a state of another schema, and for bytes that are none."""
    remedy = "use the release of Retort that wrote it, or begin with an empty state folder"
    try:
        state = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RouterError(f"the rollout state in the registry can't be read ({error}); {remedy}") from error
    if state.schema != SCHEMA:
        raise RouterError(
            f"the rollout state of route {state.route!r} in the registry has schema {state.schema}, and this release "
            f"reads schema {SCHEMA}; {remedy}"
        )
    return state
