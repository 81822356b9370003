"""The phase that writes the model card, and what the phases after the gate are of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from exporters.models import ArtefactError, Store
from exporters.models.open_store import open_store
from retrainer.card import Facts, Point, write_card
from retrainer.evaluation.evaluate import Report
from retrainer.evaluation.gate import Verdict
from retrainer.ladder import Step
from retrainer.phases_gate import Compared, Setting
from retrainer.recipes import RECIPES
from retrainer.safety import Suite
from router.registry import Version


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A student that the gate lets through. `phases`: its finished phases' stored results by their plain names, with
    those that all rungs share. `ladder`: what it and the students below it came to."""

    phases: Mapping[str, Any]
    reports: Mapping[str, Report]
    verdict: Verdict
    ladder: Sequence[Step]


def card(setting: Setting, passed: Passed, version: str, versions: Sequence[Version]) -> dict[str, int]:
    """Write the model card into the artefact; returns its files' sizes. `version`: the student's id; `versions`: the
    route's."""
    store, artefact = open_store(setting.config), setting.job.folder / "artefact"
    points = [p for v in versions if v.id != version and (p := _point(store, v)) is not None]
    own = {file.name: file.stat().st_size for file in artefact.iterdir()}
    points.append(Point(version=version, megabytes=_megabytes(own), quality=passed.reports["quantized"].agreement))
    facts = Facts(
        version=version,
        route=setting.route,
        base=Path(RECIPES[setting.job.student.recipe](setting.job).base).name,
        recipe=setting.job.student.recipe,
        phases=passed.phases,
        reports=passed.reports,
        verdict=passed.verdict,
        compared=msgspec.convert(passed.phases["compare"], Compared),
        suites=msgspec.convert(passed.phases["safety"], list[Suite]),
        points=points,
        ladder=passed.ladder,
    )
    return write_card(artefact, facts)


def _point(store: Store, version: Version) -> Point | None:
    try:
        manifest = store.manifest(version.artefact)
    except ArtefactError as error:
        if error.retryable:  # the store is away: it may be there in a minute
            raise
        return None
    quality = manifest.report.get("quantized", {}).get("agreement")
    if quality is None:
        return None
    size = _megabytes(manifest.sizes) or store.size(version.artefact) / 1e6  # of before sizes were told
    return Point(version=version.id, megabytes=size, quality=quality)


def _megabytes(sizes: Mapping[str, int]) -> float:
    """Of what is served: without the card."""
    return sum(size for name, size in sizes.items() if not name.startswith("card")) / 1e6
