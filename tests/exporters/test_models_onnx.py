"""Merging, exporting and answering, with a tiny model."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_model
from test_models_store import little_room

from exporters.models import ExportFailed, GenAIGenerator, record_golden, staged, to_onnx
from exporters.models.errors import ExportCutShort
from gateway.engines.genai import GenAIRuntime
from gateway.engines.protocol import Done, Event, Generate, Options, Piece
from gateway.engines.schedule import Schedule

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("onnx") / "tiny")


@pytest.fixture(scope="module")
def exported(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "out"
    folder.mkdir()
    to_onnx(base, folder, quantization="int8", log=folder.parent / "export.log")
    return folder


PROMPTS = [tiny_model.messages(n) for n in range(20)]


def test_the_export_reads_prompts_as_training_does(base: Path, exported: Path) -> None:
    from transformers import AutoTokenizer

    from retrainer.data.render import prompt_ids

    tokenizer = AutoTokenizer.from_pretrained(base)
    generator = GenAIGenerator(exported, threads=1)
    odd = [{"role": "user", "content": 'naïve “quotes” 日本語 😀\n\ttab  {"a": 12}'}]
    for prompt in [*PROMPTS, odd]:
        assert generator.encode(prompt) == prompt_ids(tokenizer, prompt)


def test_most_answers_survive_int8(base: Path, exported: Path) -> None:
    """The first greedy token; a random model's later ones follow from it."""
    from retrainer.evaluation.generate import TorchGenerator

    dense = TorchGenerator(base).generate(PROMPTS, max_new_tokens=1)
    quantized = GenAIGenerator(exported, threads=1).generate(PROMPTS, max_new_tokens=1)
    assert sum(a.text == b.text for a, b in zip(dense, quantized, strict=True)) >= 17


def test_answers_do_not_depend_on_their_neighbours(exported: Path) -> None:
    """They share passes, and a prompt takes the beginning that it shares with another from there."""
    generator = GenAIGenerator(exported, threads=1)
    ticks: list[int] = []
    together = generator.generate(PROMPTS, max_new_tokens=8, tick=ticks.append)
    alone = [generator.generate([p], max_new_tokens=8)[0] for p in PROMPTS]
    assert together == alone
    assert ticks == list(range(1, 21))
    assert generator.generate(PROMPTS, max_new_tokens=8, drafts=["{wrong}"] * 20) == together
    assert generator.generate([], max_new_tokens=8) == []


def test_evaluation_says_what_the_engine_serves(exported: Path) -> None:
    """Token for token, however many ask at once."""
    generator = GenAIGenerator(exported, threads=1)
    plain = generator.generate(PROMPTS, max_new_tokens=8)
    runtime, sent = GenAIRuntime(exported, threads=1), list[Event]()
    schedule = Schedule(runtime, sent.append)
    for number, prompt in enumerate(PROMPTS):
        options = Options(max_tokens=8, temperature=0, top_logprobs=0)
        schedule.take(Generate(id=number, messages=prompt, options=options, at=0.0))
    while not schedule.idle:
        schedule.turn()
    for number, answer in enumerate(plain):
        pieces = [event for event in sent if isinstance(event, Piece) and event.id == number]
        (done,) = [event for event in sent if isinstance(event, Done) and event.id == number]
        assert "".join(piece.text for piece in pieces) == answer.text
        assert (done.completion_tokens, done.finish_reason) == (answer.tokens, answer.finish_reason)
        told = [token.logprob for piece in pieces for token in piece.tokens]
        assert told == pytest.approx(answer.logprobs[: len(told)], abs=1e-5)


def test_golden_answers_begin_with_prompts_where_the_student_differs_from_the_base(exported: Path) -> None:
    generator = GenAIGenerator(exported, threads=1)
    answers = [a.text for a in generator.generate(PROMPTS[:6], max_new_tokens=8)]
    base = dict(enumerate(answers[:5])) | {5: "something else"}
    golden = record_golden(generator, PROMPTS[:6], max_new_tokens=8, base=base, most=3)
    assert len(golden) == 3
    assert golden[0]["messages"] == PROMPTS[5]
    assert golden[0]["answer"] == answers[5]
    assert golden[0]["base_answer"] == "something else"
    assert golden[0]["max_tokens"] == 8


def test_a_folder_that_is_no_model_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match=r"holds no config\.json"):
        to_onnx(tmp_path, tmp_path, quantization="int8", log=tmp_path / "export.log")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('no such layer'); raise SystemExit(3)", r"(?s)ended with status 3; see .*export\.log.*no such layer"),
        ("print('all is well')", r"wrote no genai_config\.json, model\.onnx"),
    ],
)
def test_a_builder_that_fails_or_writes_nothing_is_told_in_its_own_words(
    base: Path, tmp_path: Path, program: str, said: str
) -> None:
    log, builder = tmp_path / "export.log", (sys.executable, "-c", program)
    with pytest.raises(ExportFailed, match=said) as failed:
        to_onnx(base, tmp_path, quantization="int8", log=log, builder=builder)
    assert not failed.value.retryable


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("open('tokenizer.json', 'w').close(); open('model.onnx', 'wb').write(bytes(200_000))", "File too large"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9"),
    ],
)
def test_where_the_machine_has_no_room_the_export_may_be_tried_again_and_leaves_nothing(
    base: Path, tmp_path: Path, program: str, said: str
) -> None:
    log, out = tmp_path / "export.log", tmp_path / "artefact"
    builder = (sys.executable, "-c", f"import os; os.chdir({str(tmp_path / '.artefact.tmp')!r}); {program}")
    with little_room(), pytest.raises(ExportCutShort, match=said) as failed, staged(out) as staging:
        to_onnx(base, staging, quantization="int8", log=log, builder=builder)
    assert failed.value.retryable
    assert [path.name for path in tmp_path.iterdir()] == ["export.log"]


def test_the_builder_ends_with_the_process_that_exports(base: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connect = f"import socket, time; s = socket.create_connection({listening.getsockname()!r}); time.sleep(60)"
        code = (
            "from pathlib import Path; from exporters.models import to_onnx\n"
            f"to_onnx(Path({str(base)!r}), Path({str(tmp_path)!r}), quantization='int8',"
            f" log=Path({str(tmp_path / 'export.log')!r}), builder={(sys.executable, '-c', connect)!r})"
        )
        listening.settimeout(60)
        with subprocess.Popen([sys.executable, "-c", code]) as exporting:
            builder, _ = listening.accept()
            exporting.kill()
    with builder:
        builder.settimeout(30)
        assert builder.recv(1) == b""  # it is gone, and its connection with it


def test_a_truncated_graph_is_refused_with_its_folder(exported: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(exported, broken)
    graph = broken / "model.onnx"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    with pytest.raises(ExportFailed, match=f"can't load {broken}"):
        GenAIGenerator(broken)


def test_an_export_says_nothing_of_the_repository_that_it_was_made_in(exported: Path) -> None:
    """Else the same weights would not give the same artefact."""
    import onnx
    import onnxruntime_genai as og

    graph = onnx.load(exported / "model.onnx", load_external_data=False)
    assert graph.producer_version in (og.__version__, f"{og.__version__}+{og.__commit__[:7]}")


def test_a_full_disk_is_none_of_the_models_faults_although_its_log_can_not_say_so(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    builder = (sys.executable, "-c", "raise SystemExit(1)")
    with pytest.raises(ExportCutShort, match="ended with status 1"):
        to_onnx(base, tmp_path, quantization="int8", log=tmp_path / "export.log", builder=builder)
