"""Which artefacts are needed no more, and their removal."""

import logging
from collections.abc import Iterable, Sequence

import msgspec

from exporters.models.store import Store
from router.config import Config
from router.registry import Registry, Stage, Version

log = logging.getLogger("retort.artefacts")

SERVED, REJECTED = frozenset((Stage.RETIRED, Stage.ROLLED_BACK)), frozenset((Stage.REJECTED,))


class Unneeded(msgspec.Struct, frozen=True):
    """Artefacts that may go: of versions that have ended (`ended`), and of no version of a route (`unknown`)."""

    ended: list[str]
    unknown: list[str]


def unneeded(
    routes: Iterable[Sequence[Version]], artefacts: Iterable[str], *, keep: int | None, wanted: Iterable[str] = ()
) -> Unneeded:
    """Of `artefacts`, what no version needs that serves, or may. `routes`: each route's versions, the oldest first; of
    those that served and of those that were rejected the newest `keep` stay each (None: all), so that a rollback, and
    a comparison, find them. `wanted`: what engines would load now."""
    needed = set(wanted)
    known: set[str] = set()
    for versions in routes:
        going: set[str] = set()
        for stages in (SERVED, REJECTED):
            ended = [v.id for v in versions if v.stage in stages]
            going |= set() if keep is None else set(ended[: max(0, len(ended) - keep)])
        needed |= {v.artefact for v in versions if v.id not in going}
        known |= {v.artefact for v in versions}
    present = set(artefacts)
    return Unneeded(ended=sorted(present & known - needed), unknown=sorted(present - known))


def find(config: Config, registry: Registry, store: Store) -> Unneeded:
    """As the configuration says; an engine never misses what it may have to load. Raises RegistryUnavailable,
    ArtefactsAway."""
    engines = config.engines.items()
    wanted = {v.artefact for name, engine in engines for v in registry.wanted(name, engine.max_loaded)}
    routes = (registry.versions(route) for route in config.routes)
    return unneeded(routes, store.ids(), keep=config.artefact_policy.keep, wanted=wanted)


def remove(store: Store, artefacts: Sequence[str]) -> None:
    """Remove them, and the files that nothing holds any more. Raises ArtefactsAway."""
    for name in artefacts:
        store.remove(name)
        log.info("artefacts.removed", extra={"artefact": name})
    if artefacts:
        store.sweep()
