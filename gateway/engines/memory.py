"""Memory of the versions of an engine: each is a process of its own, so that what one held comes back when it ends."""

import os
from contextlib import suppress
from pathlib import Path

from exporters.models import GENAI, Manifest
from exporters.models.rows import whole_cache
from gateway.engines.errors import NoRoom, NotReady

AROUND_WEIGHTS = 300e6  # bytes of a process beside its weights and cache: libraries, buffers
_WEIGHTS = (".onnx", ".data", ".safetensors")
_FIRST_TO_GO = "1000"
# What NumPy, ONNX Runtime and the loader of shared libraries say where there is no memory left.
_SAID = ("bad_alloc", "bad allocation", "failed to map segment", "Cannot allocate memory", "Failed to allocate memory")


def needs(folder: Path, manifest: Manifest, *, cache_gb: float) -> float:
    """Bytes of a worker that serves the artefact in `folder`; `cache_gb`: see Rows."""
    weights = sum(size for name, size in manifest.sizes.items() if name.endswith(_WEIGHTS))
    cache = min(cache_gb * 1e9, whole_cache(folder)) if manifest.runtime == GENAI else 0.0
    return weights + AROUND_WEIGHTS + cache


def check(name: str, held: float, *, needed: float, most_gb: float) -> None:
    """Raises NoRoom where the version of this name, which needs so many bytes, would take more beside the `held` ones;
    NotReady where it would by itself."""
    takes = f"{name} takes about {needed / 1e9:.2f} GB"
    if needed > most_gb * 1e9:
        raise NotReady(f"{takes}, more than memory_gb: {most_gb:g} of this engine")
    if needed + held > most_gb * 1e9:
        raise NoRoom(f"{takes} and {held / 1e9:.2f} are in use, of memory_gb: {most_gb:g}")


def resident(pid: int) -> int:
    """Bytes of a process, and of those that it has started, that are in memory; 0 where it has ended, or nothing
    tells."""
    try:
        own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        started = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    except (OSError, ValueError, IndexError):
        return 0
    return own + sum(resident(int(child)) for children in started for child in children)


def lacking(error: BaseException) -> bool:
    """Whether an error is for want of memory: another time there may be some."""
    return isinstance(error, MemoryError) or any(said in str(error) for said in _SAID)


class FirstToGo:
    """While this process loads, a kernel that runs out of memory ends it, and none that serves."""

    _FILE = Path("/proc/self/oom_score_adj")

    def __enter__(self) -> None:
        with suppress(OSError):
            self._before = self._FILE.read_text()
            self._FILE.write_text(_FIRST_TO_GO)

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, AttributeError):
            self._FILE.write_text(self._before)
