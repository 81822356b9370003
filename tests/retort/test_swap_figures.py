"""`scripts/bench swap`: its command line, its students, its figures; and a run in short, on real processes.

The full ones are benchmarks/results/swap_onnx.json and swap_vllm.json.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import swap
import swap_figures as figures
import swap_student
from swap_load import Answer
from swap_stand import ENGINES, Stand

from exporters.models import GENAI, VLLM, Store

NORTH, SOUTH = swap_student.WORDS
ENGINE = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], '/models/v1', sys.argv[2]])"
WORKER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[2]])"
CORE = "import time; held = bytearray(b'x') * 10**8; print('held', flush=True); time.sleep(60)"


def answer(at: float, seconds: float, *, first: float | None = None, session: int = 1, served: str = "v1") -> Answer:
    return Answer(at=at, session=session, stream=first is not None, served=served, seconds=seconds, first=first)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--rate", "0"], "--rate is 0.0, and must be above 0"),
        (["--cycles", "0"], "--cycles is 0, and must be above 0"),
        (["--steady", "nan"], "--steady is nan, and must be above 0"),
        (["--engine", "llama"], "invalid choice: 'llama'"),
    ],
)
def test_what_can_not_be_measured_is_refused_before_anything_starts(
    given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        swap.asked(given)
    assert told in capsys.readouterr().err


def test_vllm_that_is_not_installed_is_told_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ENGINES, "vllm", msgspec.structs.replace(ENGINES["vllm"], python=tmp_path / "python"))
    with pytest.raises(SystemExit):
        swap.asked(["--engine", "vllm"])
    assert f"--engine vllm needs {tmp_path}/python: scripts/install_vllm makes it" in capsys.readouterr().err
    (tmp_path / "python").touch()
    options = swap.asked(["--engine", "vllm"])
    assert (options.cycles, options.rate, options.steady) == (20, 2.5, 180.0)
    assert swap.asked([]).rate == 50.0


def test_kept_students_of_one_engine_are_not_taken_for_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(mark: str, folder: Path) -> dict[str, Path]:
        found = {word: folder / word.strip() for word in swap_student.WORDS}
        for path in found.values():
            path.mkdir()
            (path / mark).touch()
        written.append(mark)
        return found

    for name, engine in list(ENGINES.items()):
        fake = msgspec.structs.replace(engine, write=lambda folder, mark=engine.mark: write(mark, folder))
        monkeypatch.setitem(ENGINES, name, fake)
    for name in ("onnx", "vllm", "onnx", "vllm"):
        for folder in swap.students(tmp_path, name).values():
            assert [file.name for file in folder.iterdir()] == [ENGINES[name].mark]
    assert written == ["genai_config.json", "config.json"]


def test_golden_answers_hold_what_torch_finds(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = swap_student.dense(tmp_path / "south", SOUTH)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    golden = swap_student.golden(SOUTH)
    line = tokenizer.apply_chat_template(golden["messages"], add_generation_prompt=True, return_dict=False)
    prompt, logprobs = len(line), []
    for _ in range(golden["max_tokens"]):
        with torch.no_grad():
            row = torch.log_softmax(model(torch.tensor([line])).logits[0, -1].double(), -1)
        line.append(int(row.argmax()))
        logprobs.append(float(row.max()))
    assert tokenizer.decode(line[prompt:]) == golden["answer"] == "south so"
    assert golden["logprobs"] == pytest.approx(logprobs, abs=1e-5)


@pytest.mark.parametrize(("engine", "runtime", "quantization"), [("onnx", GENAI, "fp32"), ("vllm", VLLM, "none")])
def test_students_are_published_for_the_engines_runtime(
    engine: str, runtime: str, quantization: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / ENGINES[engine].mark).write_text("{}")
    swap_student.publish(Store(tmp_path / "store"), "v1", source, NORTH, runtime=ENGINES[engine].runtime)
    manifest = Store(tmp_path / "store").manifest("v1")
    assert (manifest.runtime, manifest.quantization) == (runtime, quantization)
    assert manifest.golden == [swap_student.golden(NORTH)]


def test_a_versions_memory_is_that_of_all_that_its_process_has_started(tmp_path: Path) -> None:
    """As vLLM's server starts the process that holds the model."""
    stand = Stand(tmp_path / "stand", {})
    stand.words["v1"] = NORTH
    command = [sys.executable, "-c", ENGINE, WORKER, CORE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as engine:
        try:
            assert engine.stdout is not None
            assert engine.stdout.readline() == b"held\n"
            stand.processes["engine"] = engine
            workers, memory = stand.workers(), stand.memory()
            assert list(workers) == ["v1"]
            assert f"-c\0{WORKER}\0/models/v1" in Path(f"/proc/{workers['v1']}/cmdline").read_text()
            assert memory["engine"] < 10**8 < memory["workers"]
            assert memory["versions"] == 1
        finally:
            os.killpg(engine.pid, signal.SIGKILL)
            stand.registry.close()


def test_who_waits_for_an_engine_that_has_ended_is_told_at_once_what_it_said(tmp_path: Path) -> None:
    stand = Stand(tmp_path / "stand", {})
    (stand.folder / "engine.log").write_text("no room for v1")
    with subprocess.Popen([sys.executable, "-c", ""]) as engine:
        stand.processes["engine"] = engine
        engine.wait()
        with pytest.raises(SystemExit, match="swap: the engine has ended; the engine said:\nno room for v1"):
            stand.until(lambda: False, seconds=3600.0)
    stand.registry.close()


def test_times_are_of_the_students_answers_that_were_due_within_the_spans() -> None:
    plain = [answer(at, seconds) for at, seconds in ((0.5, 0.1), (1.5, 0.1), (2.5, 0.3), (3.5, 0.3), (9.0, 5.0))]
    streams = [answer(0.6, 1.0, first=0.2), answer(2.6, 2.0, first=0.4), answer(3.6, 2.0, first=0.4)]
    teacher = [answer(0.7, 70.0, served="teacher"), answer(2.7, 70.0, served="teacher")]
    steady = figures.times([*plain, *streams, *teacher], [(0.0, 1.0), (1.2, 2.0)])
    assert steady == {"plain": {"answers": 2, "p50_ms": 100.0, "p99_ms": 100.0}}, "one stream has no percentiles"
    swaps = figures.times([*plain, *streams, *teacher], [(2.0, 4.0)])
    assert swaps["plain"] == {"answers": 2, "p50_ms": 300.0, "p99_ms": 300.0}
    assert swaps["first text of a stream"]["p99_ms"] == 400.0
    assert figures.ratios(swaps, steady) == {"plain": 3.0}


def test_answers_by_another_arm_than_most_of_a_conversations_are_counted() -> None:
    of = [(1, "v1"), (1, "v2"), (1, "teacher"), (2, "teacher"), (2, "teacher"), (3, "v1"), (3, "")]
    assert figures.arms([answer(0.0, 1.0, session=session, served=served) for session, served in of]) == 1


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_a_short_run_loads_anew_then_flips_what_is_warm_and_no_answer_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the cycles of vLLM, with students that are loaded sooner."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    stand = Stand(tmp_path / "stand", swap_student.onnx(tmp_path / "students"))
    options = argparse.Namespace(engine="vllm", cycles=2, rate=20.0, steady=2.0)
    try:
        stand.start()
        found, goals = asyncio.run(swap.Measured(stand, options).run())
    finally:
        stand.stop()
    assert found["verdicts"] == {"ok": found["answers"]}, found["bad"]
    assert found["many streams"]["verdicts"] == {"ok": swap.STREAMS}
    assert found["by another arm than the conversation's"] == 0
    assert {memory["versions"] for memory in found["memory, bytes"].values()} == {3}
    times: dict[str, dict[str, Any]] = found["times"]
    assert set(times) == {"steady", "swaps", "while a version is loaded", "while none is loaded"}
    counted = [times[name]["plain"]["answers"] for name in ("while a version is loaded", "while none is loaded")]
    assert sum(counted) == times["swaps"]["plain"]["answers"]
    assert set(stand.words) == {"teacher", *(f"v{number}" for number in range(5))}, "three at first, one anew, the last"
    assert {goal["name"] for goal in goals if "p99" in goal["name"]} == {
        f"{kind}: p99 {when}, times steady"
        for kind in ("plain", "stream", "first text of a stream")
        for when in ("during swaps", "while a version is loaded")
    }
