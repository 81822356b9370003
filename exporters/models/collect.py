"""Which artefacts are needed no more, and their removal."""

import logging
from collections.abc import Iterable, Sequence

import msgspec

from exporters.models.store import Store
from router.config import Config
from router.registry import Registry, Stage, Version

log = logging.getLogger("retort.artefacts")

ENDED = frozenset((Stage.RETIRED, Stage.REJECTED, Stage.ROLLED_BACK))


class Unneeded(msgspec.Struct, frozen=True):
    """Artefacts that may go: of versions that have ended (`ended`), and of no version of a route (`unknown`)."""

    ended: list[str]
    unknown: list[str]


def unneeded(routes: Iterable[Sequence[Version]], artefacts: Iterable[str], *, keep: int | None) -> Unneeded:
    """Of `artefacts`, what no version needs that serves, or may. `routes`: each route's versions, the oldest first; of
    those that have ended the newest `keep` stay (None: all), so that a rollback, and a comparison, find them."""
    needed: set[str] = set()
    known: set[str] = set()
    for versions in routes:
        ended = [v for v in versions if v.stage in ENDED]
        going = set() if keep is None else {v.id for v in ended[: max(0, len(ended) - keep)]}
        needed |= {v.artefact for v in versions if v.id not in going}
        known |= {v.artefact for v in versions}
    present = set(artefacts)
    return Unneeded(ended=sorted(present & known - needed), unknown=sorted(present - known))


def find(config: Config, registry: Registry, store: Store) -> Unneeded:
    """As the configuration says; an engine never misses what it may have to load. Raises RegistryUnavailable,
    ArtefactsAway."""
    keep = config.artefact_policy.keep
    if keep is not None:
        keep = max([keep, *(engine.max_loaded for engine in config.engines.values())])
    return unneeded((registry.versions(route) for route in config.routes), store.ids(), keep=keep)


def remove(store: Store, artefacts: Sequence[str]) -> None:
    """Remove them, and the files that nothing holds any more. Raises ArtefactsAway."""
    for name in artefacts:
        store.remove(name)
        log.info("artefacts.removed", extra={"artefact": name})
    if artefacts:
        store.sweep()
