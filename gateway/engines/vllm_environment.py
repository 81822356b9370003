"""What vLLM's own environment can do on this machine: asked before anything is served by it."""

import asyncio
import os

import msgspec

from gateway.engines.errors import WorkerGone

ASK_SECONDS = 120.0
# W4A16 on a CPU is a kernel of the AVX-512 build alone; without it a server answers /health, and dies at the first
# request.
_QUESTION = """
import json, torch
from vllm.platforms import current_platform as platform
platform.import_kernels()
cpu = platform.device_type == "cpu"
print(json.dumps({"device": platform.device_type, "four_bits": not cpu or hasattr(torch.ops._C, "cpu_gemm_wna16")}))
"""


class Environment(msgspec.Struct, frozen=True):
    """`device`: cpu, cuda, ... `four_bits`: whether weights in 4 bits can be served."""

    device: str
    four_bits: bool

    @property
    def on_cpu(self) -> bool:
        """Whether servers run on the CPU."""
        return self.device == "cpu"


async def ask(python: str) -> Environment:
    """Of the interpreter `python`. Raises WorkerGone where vLLM doesn't load there."""
    how = "scripts/install_vllm makes it (--gpu: for CUDA)"
    try:
        process = await asyncio.create_subprocess_exec(
            python,
            "-c",
            _QUESTION,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
    except OSError as error:
        raise WorkerGone(f"vllm.python: {python} can't be run ({error.strerror}); {how}") from error
    try:
        async with asyncio.timeout(ASK_SECONDS):
            said, wrong = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise WorkerGone(f"vLLM did not load in {python} within {ASK_SECONDS:.0f} s") from None
    except BaseException:
        process.kill()
        await process.wait()
        raise
    try:
        return msgspec.json.decode(said.splitlines()[-1], type=Environment)
    except (IndexError, msgspec.MsgspecError):
        last = wrong.decode("utf-8", "replace").strip().rpartition("\n")[2] or f"status {process.returncode}"
        raise WorkerGone(f"vLLM does not load in {python}: {last}; {how}") from None
