"""A program in the place of vLLM's: `fake_vllm_program.py --port N --served-model-name NAME ... FILE`. It starts a
process of its own, as vLLM does, tells its id in NAME.pid beside FILE and its own oom_score_adj in NAME.oom, and then
does what FILE says: `well`, `model` (it can't serve the model), `talks` (it says 12 MB, and then is well), `memory`
(there is none left), `killed` (while it starts), `never` (it doesn't get well)."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from fake_vllm import FakeVllm


async def serve(name: str, port: int) -> None:
    async with FakeVllm(name).running(port):
        await asyncio.sleep(60)


def main(arguments: list[str]) -> None:
    how, name = Path(arguments[-1]).read_text(), arguments[arguments.index("--served-model-name") + 1]
    sys.stdout.write("(APIServer pid=1) WARNING 11-28 03:23:53 [utils.py:255] errors like `OSError: [Errno 24]`\n")
    below = subprocess.Popen(["sleep", "60"])
    Path(arguments[-1]).with_name(f"{name}.pid").write_text(str(below.pid))
    Path(arguments[-1]).with_name(f"{name}.oom").write_text(Path("/proc/self/oom_score_adj").read_text())
    if how == "talks":
        sys.stdout.write(f"{'x' * 99}\n" * 120_000)
        sys.stdout.flush()
    if how == "model":
        raise ValueError("Model architectures ['T5'] are not supported for now.")
    if how == "memory":
        raise ValueError("No available memory for the cache blocks.")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "never":
        below.wait()
    asyncio.run(serve(name, int(arguments[arguments.index("--port") + 1])))


if __name__ == "__main__":
    main(sys.argv)
