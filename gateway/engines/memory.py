"""Memory of the versions of an engine: each is a process of its own, so that what one held comes back when it ends."""

import os
from contextlib import suppress
from pathlib import Path

from exporters.models import GENAI, Manifest
from exporters.models.errors import NO_MEMORY
from exporters.models.rows import whole_cache
from gateway.engines.errors import NoRoom, Unfit

AROUND_WEIGHTS = 300e6  # bytes of a process beside its weights and cache: libraries, buffers
_WEIGHTS = (".onnx", ".data", ".safetensors")
_FIRST_TO_GO = "1000"
_OWN = Path("/proc/self/oom_score_adj")


def needs(folder: Path, manifest: Manifest, *, cache_gb: float) -> float:
    """Bytes of a worker that serves the artefact in `folder`; `cache_gb`: see Rows."""
    weights = sum(size for name, size in manifest.sizes.items() if name.endswith(_WEIGHTS))
    cache = min(cache_gb * 1e9, whole_cache(folder)) if manifest.runtime == GENAI else 0.0
    return weights + AROUND_WEIGHTS + cache


def check(name: str, held: float, *, needed: float, most_gb: float) -> None:
    """Raises NoRoom where the version of this name, which needs so many bytes, would take more beside the `held` ones;
    Unfit where it would by itself."""
    takes = f"{name} takes about {needed / 1e9:.2f} GB"
    if needed > most_gb * 1e9:
        raise Unfit(f"{takes}, more than memory_gb: {most_gb:g} of this engine")
    if needed + held > most_gb * 1e9:
        error = NoRoom(f"{takes} and {held / 1e9:.2f} are in use, of memory_gb: {most_gb:g}")
        error.lacks = needed + held - most_gb * 1e9
        raise error


def resident(pid: int) -> int:
    """Bytes of a process, and of those that it has started, that are in memory; 0 where it has ended, or nothing
    tells."""
    total = 0
    for one in family(pid):
        with suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total


def family(pid: int) -> list[int]:
    """A process and those that it has started, as far as they are there."""
    found = [pid]
    with suppress(OSError, ValueError):
        started = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
        found += [one for children in started for child in children for one in family(int(child))]
    return found


def lacking(error: BaseException) -> bool:
    """Whether an error, or one that it follows from, is for want of memory: another time there may be some."""
    if isinstance(error, MemoryError) or any(said in str(error) for said in NO_MEMORY):
        return True
    return error.__cause__ is not None and lacking(error.__cause__)


class FirstToGo:
    """While this process loads, a kernel that runs out of memory ends it, and none that serves. So it does with what
    is started within, until `as_others` is called of it."""

    def __enter__(self) -> None:
        with suppress(OSError):
            self._before = _OWN.read_text()
            _OWN.write_text(_FIRST_TO_GO)

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, AttributeError):
            _OWN.write_text(self._before)


def as_others(pid: int) -> None:
    """A process that was started by a FirstToGo has loaded, with all that it has started: it counts as this one."""
    for one in family(pid):
        with suppress(OSError):
            Path(f"/proc/{one}/oom_score_adj").write_text(_OWN.read_text())
