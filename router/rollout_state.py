"""The state of one route's rollout: a frozen value that a fold over the evidence log produces, and its encoding."""

from typing import Literal

import msgspec

from router.errors import RouterError
from router.registry import Rollout, Stage
from router.sequential import Cusum, Mixture
from router.sequential.slo import Block

SCHEMA = 2

Stream = Literal["quality", "errors", "slo"]


class Trial(msgspec.Struct, frozen=True):
    """The challenger's tests. Quality and paired latency run in shadow; the SLO test is new at each step; the error
    test runs over all steps. A test that has passed stays passed: it is a stopping time of its martingale."""

    quality: Mixture = Mixture()
    inferior: Mixture = Mixture()
    latency: Mixture = Mixture()
    errors: Mixture = Mixture()
    slo: Mixture = Mixture()
    quality_passed: bool = False
    latency_passed: bool = False
    errors_passed: bool = False
    slo_passed: bool = False
    pairs: int = 0
    lost: float = 0.0  # sum of -D over the pairs
    requests: int = 0  # served by the student at this step
    dwell: float = 0.0  # seconds at this step


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
    """The e-detectors of a version in shadow, canary or live: two a stream, below the margin and below its level."""

    quality: Cusum = Cusum()
    errors: Cusum = Cusum()
    slo: Cusum = Cusum()
    block: Block = Block()
    levels: dict[Stream, Level] = {}
    since: int = 0  # the revision at which it was first watched
    expected_pairs: float = 0.0  # since the last pair, had all gone well
    silence: float = 0.0  # seconds since the last pair


class VersionState(msgspec.Struct, frozen=True):
    """Where one version stands. `since`: the rollout revision at which it came into service. `levels`: its own, kept
    while it is out of service, for whoever promotes it by hand."""

    stage: Stage
    admitted: bool = False  # a CANDIDATE event came: the gate passed, or was overridden
    ready: bool = False
    since: int = 0
    levels: dict[Stream, float] = {}


class RouteState(msgspec.Struct, frozen=True):
    """All that the fold knows of a route. `now`: the latest time seen, Unix seconds."""

    route: str
    schema: int = SCHEMA
    policy: str | None = None  # RoutePolicy as JSON
    revision: int = 0
    now: float = 0.0
    versions: dict[str, VersionState] = {}  # in the order of arrival
    live: str | None = None
    challenger: str | None = None
    step: int = 0
    paused: bool = False
    pinned: str | None = None
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


def view(state: RouteState, fraction: float) -> Rollout:
    """What gateway workers see of a state; `fraction` is the challenger's share of eligible traffic."""
    stage = state.versions[state.challenger].stage if state.challenger else None
    return Rollout(
        route=state.route,
        revision=state.revision,
        live=state.live,
        challenger=state.challenger,
        stage=stage,
        step=state.step,
        fraction=fraction,
        paused=state.paused,
    )
