"""What answers as an artefact will be served, by its runtime."""

from collections.abc import Callable
from pathlib import Path

from exporters.models import CLOSED, GENAI, GenAIGenerator
from retrainer.recipes.recipe import Exported


def _closed(artefact: Path) -> Exported:
    from exporters.models.closed import ClosedModel  # noqa: PLC0415 - numpy: only a cycle pays for it

    return ClosedModel.load(artefact)


# Each loads an artefact's folder. Raises ArtefactError.
SERVED: dict[str, Callable[[Path], Exported]] = {GENAI: GenAIGenerator, CLOSED: _closed}
