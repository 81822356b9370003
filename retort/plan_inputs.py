"""What the log, the registry and the artefact store know that a plan needs. Read only; none of them need exist."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from collector import IMPORTED, LATEST, REPORTED, Stream, open_interactions
from exporters.models.errors import ArtefactError
from exporters.models.open_store import open_store
from exporters.models.store import Store
from router import Arm, Config, Version, decode_state, open_registry


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A route's latest captured requests. `seconds`: between the first and the last. `cost`: mean USD of a teacher's
    answer, None where no price is known."""

    requests: int = 0
    eligible: int = 0
    seconds: float = 0.0
    cost: float | None = None

    @property
    def per_second(self) -> float | None:
        """Captured requests a second; None where there are too few to say."""
        return (self.requests - 1) / self.seconds if self.requests > 1 and self.seconds > 0.0 else None


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a registry says. `number`: which version of the route to enter shadow is planned for, from 1. `live`: a
    version that serves already. `agreement`: of the newest version that has an evaluation, named by `version`."""

    number: int = 1
    live: str | None = None
    agreement: float | None = None
    version: str | None = None


def measure(config: Config, route: str) -> Measured:
    """From the interactions, and those in quarantine, which came in as well; not from what was imported. Raises
    LogError."""
    if not _exists(config.log):
        return Measured()
    requests = eligible = priced = 0
    cost, first, last = 0.0, float("inf"), 0.0
    with open_interactions(config) as interactions:
        for record in interactions.latest(route):
            if record.source:
                continue
            requests += 1
            eligible += record.eligible
            first, last = min(first, record.at), max(last, record.at)
            for answer in record.answers:
                if answer.arm is Arm.TEACHER and answer.cost_usd is not None:
                    cost, priced = cost + answer.cost_usd, priced + 1
        quarantined = interactions.log.read(Stream.QUARANTINE, 0, LATEST, key=route)
        aside = sum(
            first <= entry.at <= last and not entry.id.startswith((IMPORTED, REPORTED)) for entry in quarantined
        )
    return Measured(
        requests=requests + aside,
        eligible=eligible + aside,
        seconds=max(last - first, 0.0) if requests else 0.0,
        cost=cost / priced if priced else None,
    )


def known(config: Config, route: str) -> Known:
    """From the registry, and the manifests of its versions. Raises RegistryUnavailable."""
    if not _exists(config.registry):
        return Known()
    with closing(open_registry(config.registry)) as registry:
        rollout, state, _ = registry.checkpoint(route)
        versions = registry.versions(route)
    agreement, version = _evaluated(open_store(config), versions)
    return Known(
        number=max((decode_state(state).tests if state else 0) + (rollout.challenger is None), 1),
        live=rollout.live,
        agreement=agreement,
        version=version,
    )


def _evaluated(store: Store, versions: Sequence[Version]) -> tuple[float | None, str | None]:
    """The newest evaluation: of the model as it is served, else of the one before quantizing."""
    for version in reversed(versions):
        try:
            report = store.manifest(version.artefact).report
        except ArtefactError:
            continue
        for judged in ("quantized", "student"):
            agreement = report.get(judged, {}).get("agreement")
            if isinstance(agreement, float | int):
                return float(agreement), version.id
    return None, None


def _exists(url: str) -> bool:
    """False for a file that isn't there: opening it would make it."""
    return not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).is_file()
