"""A model in 4 bits becomes a dense one of the very same weights, for machines where vLLM has no kernels for 4 bits:
`python -m gateway.engines.vllm_dense SOURCE OUT`, a process of its own, whose memory comes back."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

from exporters.child import ending_with
from exporters.models import ArtefactError, alone, dequantize
from gateway.engines.errors import NotReady, WorkerGone

_FAILED = 3


async def dense(source: Path, cache: Path) -> Path:
    """The folder below `cache` with the dense weights of the artefact `source`, made at the first call. Those of
    artefacts that are no longer there are removed. Raises NotReady, WorkerGone."""
    out = cache / source.name
    for old in cache.glob("*"):
        name = old.name.removeprefix(".").removesuffix(".tmp").removesuffix(".lock")  # what was killed leaves such
        if not (source.parent / name).exists():
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    if (out / "config.json").is_file():
        return out
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway.engines.vllm_dense", str(source), str(out), str(os.getpid())),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2] or f"status {process.returncode}"
        kind = NotReady if process.returncode == _FAILED else WorkerGone
        raise kind(f"the dense weights of {source} could not be written: {last}")
    return out


def main(source: Path, out: Path) -> int:
    """Write them. Returns the exit status."""
    try:
        with alone(out):
            if not (out / "config.json").is_file():
                dequantize(source, out)
    except ArtefactError as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    return 0


if __name__ == "__main__":
    ending_with(int(sys.argv[3]))()
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
