"""What a vLLM server writes: a file that is kept short, and one before it."""

import asyncio
import logging
import re
from pathlib import Path
from typing import BinaryIO

LONGEST = 10_000_000  # bytes of a file; between two looks it may grow beyond that
BASE = "base"  # the name of the file of a base's server, as others have their artefact's
LOOK_SECONDS = 5.0
_TAIL = 65_536  # bytes that are looked through for the reason of an end
# An exception with the line after it, where that goes on (as pydantic's do); or what argparse says.
_REASON = re.compile(r"\b(\w*(?:Error|Exception|Interrupt)\b: .+(?:\n(?:\([^)]*\) )?  \S.*)?|(?<=\.py: )error: .+)")
_LONGEST_REASON = 500  # characters

log = logging.getLogger("retort.engine")


def opened(path: Path) -> BinaryIO:
    """A new file for a server's words; that of the last one is kept beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(_before(path))
    return path.open("ab")  # whoever writes does so at the end, also after the file has been emptied


async def keep_short(path: Path, *, longest: int = LONGEST, seconds: float = LOOK_SECONDS) -> None:
    """Whenever the file has become longer, move what it holds into the one before it. Who writes is never held up, as
    it would be by a pipe that nobody reads; what is written between the two steps of the move is lost."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(_shorten, path, longest)
        except FileNotFoundError:
            return  # see `forget`
        except OSError as error:  # the disk is full, say
            log.warning("engine.log_not_kept_short", extra={"file": str(path), "reason": str(error)})


def forget(folder: Path, artefacts: Path) -> None:
    """Remove the files in `folder` that are named after an artefact which is no longer there."""
    for path in folder.glob("*.log*"):
        name = path.name.removesuffix(".1").removesuffix(".log")
        if name != BASE and not (artefacts / name).exists():
            path.unlink(missing_ok=True)


def reason(path: Path | None) -> str:
    """The first error that a server's log tells, which the later ones follow from. Its warnings name errors, too."""
    if path is None:
        return "no reason"
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    found = _REASON.search("\n".join(line for line in lines if " WARNING " not in line))
    return re.sub(r"\s*\n(?:\([^)]*\))?\s*", "; ", found[1].strip())[:_LONGEST_REASON] if found else "no reason"


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _shorten(path: Path, longest: int) -> None:
    """Raises OSError, with the file shorter all the same."""
    size = path.stat().st_size
    if size <= longest:
        return
    try:
        with path.open("rb") as source, _before(path).open("wb") as out:
            source.seek(size - longest)
            out.write(source.read(longest))
    finally:
        with path.open("r+b") as stream:
            stream.truncate(0)
