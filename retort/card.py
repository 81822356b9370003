"""`retort card VERSION`: where a version's model card is."""

from exporters.models import ArtefactError
from exporters.models.open_store import open_store
from retort.errors import StartError
from router import Config

FILES = {"html": "card.html", "markdown": "card.md"}


def card(config: Config, version: str, *, form: str) -> int:
    """Print the path of the card, for a browser or a pager. Raises StartError where there is none."""
    try:
        store = open_store(config)
        folder, files = store.local(version), store.manifest(version).files
    except ArtefactError as error:
        raise StartError(str(error)) from error
    if FILES[form] not in files:
        raise StartError(f"version {version!r} has no model card: it was made before there were any")
    print((folder / FILES[form]).absolute())
    return 0
