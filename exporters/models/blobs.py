"""Files by their content: what several artefacts hold is on the disk once, under the sha256 of its bytes."""

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from exporters.models.errors import CorruptArtefact


def digest(file: Path) -> str:
    """The sha256 of a file, hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checked(found: str) -> str:
    """A digest, which a foreign manifest may have anything in the place of. Raises CorruptArtefact."""
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise CorruptArtefact(f"{found!r} is no sha256")
    return found


def share(file: Path, blob: Path) -> None:
    """Let a file and its blob be the same bytes on the disk, which nobody writes to any more; where the file system has
    no links, the file stays alone."""
    if blob.exists() and digest(blob) != blob.name:  # somebody has changed it
        blob.unlink()
    file.chmod(0o444)
    with suppress(OSError):
        if not blob.exists():
            os.link(file, blob)
        elif not file.samefile(blob):
            linked = file.with_name(f".{file.name}.link")
            os.link(blob, linked)
            linked.replace(file)


def remove_unshared(blobs: Path) -> None:
    """Remove those in the folder that no artefact holds."""
    for blob in blobs.glob("*"):
        if blob.stat().st_nlink == 1:
            blob.unlink()
