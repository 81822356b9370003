"""`retort artefacts`: what the store holds, and the removal of what nobody needs."""

import json
import time
from contextlib import closing

from exporters.models import ArtefactError
from exporters.models.collect import find, remove
from exporters.models.open_store import open_store
from exporters.models.store import Store
from retort.errors import StartError
from router import Config, open_registry


def artefacts(config: Config, *, removes: bool, unknown: bool, as_json: bool) -> int:
    """Print a line an artefact. `removes`: then remove those that may go; `unknown`: those of no version too. Raises
    StartError where the store can't be used."""
    try:
        store = open_store(config)
        with closing(open_registry(config.registry)) as registry:
            stages = {v.artefact: f"{v.route}, {v.stage.value}" for r in config.routes for v in registry.versions(r)}
            found = find(config, registry, store)
        going = [*found.ended, *(found.unknown if unknown else [])]
        rows = [_row(store, name, stages.get(name), may_go=name in going) for name in store.ids()]
        print(json.dumps(rows, indent=2) if as_json else "\n".join(map(_line, rows)) or "the store holds no artefact")
        if removes:
            remove(store, going)
    except ArtefactError as error:
        raise StartError(str(error)) from error
    if removes and not as_json:
        print(f"removed {len(going)} of {len(rows)}")
    return 0


def _row(store: Store, name: str, of: str | None, *, may_go: bool) -> dict[str, str | int | float | None]:
    row: dict[str, str | int | float | None] = {"artefact": name, "of": of, "may_go": may_go}
    try:
        manifest = store.manifest(name)
    except ArtefactError as error:
        return {**row, "error": str(error)}
    return {
        **row,
        "bytes": sum(manifest.sizes.values()) or store.size(name),
        "made": manifest.created_at,
        "runtime": manifest.runtime,
    }


def _line(row: dict[str, str | int | float | None]) -> str:
    told = "may go" if row["may_go"] else "of no version" if row["of"] is None else "needed"
    if "error" in row:
        return f"{row['artefact']}: {row['of'] or '-'}; {told}; {row['error']}"
    made, size = time.strftime("%Y-%m-%d", time.gmtime(float(row["made"] or 0))), int(row["bytes"] or 0) / 1e6
    return f"{row['artefact']}: {row['of'] or '-'}; {size:.1f} MB, {row['runtime']}, {made}; {told}"
