"""What can go wrong with an artefact.

ArtefactError
├── MissingArtefact    no such artefact, or one of its files is gone; not worth retrying
├── CorruptArtefact    a file or the manifest is not what was written; not worth retrying
├── ForbiddenFile      a file of a kind that may run code when it is loaded; not worth retrying
├── ArtefactTooLarge   more bytes than this machine's configuration takes; may be retried
├── ArtefactsAway      the object store can't be reached, or refuses; may be retried
└── ExportFailed       merging or exporting produced nothing usable; not worth retrying with the same input
    └── ExportCutShort the machine ended it, or had no memory or disk left for it; may be retried
"""

# What NumPy, ONNX Runtime, the loader of shared libraries and Python's threads say where there is no memory left.
NO_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "failed to map segment",
    "Cannot allocate memory",
    "Failed to allocate memory",
    "Unable to allocate",
    "can't start new thread",
)


class ArtefactError(Exception):
    """An artefact can't be used."""

    retryable = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class MissingArtefact(ArtefactError):
    """The artefact, or a file of it, does not exist."""


class CorruptArtefact(ArtefactError):
    """The artefact is not what was written."""


class ForbiddenFile(ArtefactError):
    """A file of this kind may not be in an artefact."""


class ArtefactTooLarge(ArtefactError):
    """It has more bytes than artefact_policy.max_gb allows here."""

    retryable = True


class ArtefactsAway(ArtefactError):
    """The object store can't be used now."""

    retryable = True


class ExportFailed(ArtefactError):
    """The export produced nothing usable."""


class ExportCutShort(ExportFailed):
    """The machine had no room for it, or ended it: another time it may go to its end."""

    retryable = True
