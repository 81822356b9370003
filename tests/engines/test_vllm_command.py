"""How vLLM is started, by configuration and machine."""

from pathlib import Path
from typing import Any

import pytest

from gateway.engines.vllm_command import Served, command, environ
from gateway.engines.vllm_environment import Environment
from router.config_engines import EngineSettings

CPU, OLD_CPU, GPU = Environment("cpu", True), Environment("cpu", False), Environment("cuda", True)
WHOLE = Served(model=Path("/artefacts/v1"), name="v1", adapters=False)
BASE = Served(model=Path("/models/base"), name="local-base", adapters=True)


def line(served: Served = WHOLE, environment: Environment = CPU, *, most: int = 3, **vllm: Any) -> str:
    settings = EngineSettings.model_validate({"runtime": "vllm", "max_loaded": most, "vllm": vllm})
    return " ".join(command(served, settings, environment, 8001)) + " "


def variables(served: Served, environment: Environment, *, cores: int = 8, given: Any = (), **engine: Any) -> Any:
    settings = EngineSettings.model_validate({"runtime": "vllm", **engine})
    return environ({"PATH": "/bin", "PYTHONPATH": "/ours"} | dict(given), served, settings, environment, cores=cores)


def test_a_version_is_served_on_loopback_under_its_name() -> None:
    said = line(max_num_seqs=7, max_model_len=2048, prefix_caching=False, tensor_parallel=2)
    for part in (
        "-m vllm.entrypoints.openai.api_server --model /artefacts/v1 --served-model-name v1 ",
        "--host 127.0.0.1 --port 8001 ",
        "--max-num-seqs 7 ",
        "--max-model-len 2048 ",
        "--no-enable-prefix-caching ",
        "--tensor-parallel-size 2 ",
        "--generation-config vllm ",
    ):
        assert part in said
    assert "lora" not in said
    assert "--enable-prefix-caching " in line()


def test_a_cpu_runs_eagerly_and_without_avx512_in_float32() -> None:
    assert "--enforce-eager " in line()
    assert "--dtype" not in line()
    assert "--dtype float32 " in line(environment=OLD_CPU)
    assert "gpu-memory" not in line()


def test_the_servers_of_an_engine_share_a_gpu() -> None:
    said = line(environment=GPU, most=3)
    assert "--gpu-memory-utilization 0.225 " in said, "three, and the one that is drained"
    assert "--enforce-eager" not in said
    assert "--gpu-memory-utilization 0.900 " in line(BASE, GPU), "adapters share one server"


def test_a_base_has_room_for_every_adapter_and_the_one_that_is_drained() -> None:
    said = line(BASE, most=3)
    assert "--enable-lora --max-loras 4 --max-cpu-loras 4 " in said
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in variables(BASE, CPU)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in variables(WHOLE, CPU)


def test_given_arguments_come_last_so_that_they_win() -> None:
    assert line(environment=OLD_CPU, arguments=["--dtype", "bfloat16"]).endswith("--dtype bfloat16 ")


def test_on_a_cpu_the_worker_runs_in_the_core_unless_there_are_several() -> None:
    assert "--distributed-executor-backend vllm.v1.executor.uniproc_executor.UniProcExecutor " in line()
    assert "executor" not in line(tensor_parallel=2)
    assert "executor" not in line(environment=GPU)
    assert variables(WHOLE, CPU)["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


@pytest.mark.parametrize(
    ("cores", "asked", "threads", "spin"),
    [(8, None, 4, None), (2, None, 1, None), (1, None, 1, None), (8, 4, 4, None), (2, 1, 1, None), (8, 5, 5, "1000")],
)
def test_two_servers_have_a_cpus_cores_and_do_not_wait_in_each_others_time(
    cores: int, asked: int | None, threads: int, spin: str | None
) -> None:
    found = variables(WHOLE, CPU, cores=cores, threads=asked)
    assert (found["OMP_NUM_THREADS"], found.get("GOMP_SPINCOUNT")) == (str(threads), spin)
    theirs = variables(WHOLE, CPU, cores=2, threads=2, given={"OMP_WAIT_POLICY": "ACTIVE"})
    assert "GOMP_SPINCOUNT" not in theirs, "who sets one of the two has thought about it"


def test_a_server_reports_to_nobody_and_imports_nothing_of_ours() -> None:
    found = variables(WHOLE, GPU)
    assert (found["VLLM_NO_USAGE_STATS"], found["HF_HUB_OFFLINE"], found["PATH"]) == ("1", "1", "/bin")
    assert "PYTHONPATH" not in found
    assert "VLLM_CPU_KVCACHE_SPACE" not in found
    assert variables(WHOLE, CPU, kv_cache_gb=3)["VLLM_CPU_KVCACHE_SPACE"] == "3"
