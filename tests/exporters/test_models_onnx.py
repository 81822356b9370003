"""Merging, exporting and answering, with a tiny model."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model

from exporters.models import Confidence, ExportFailed, GenAIGenerator, record_golden, to_onnx
from gateway.engines.decode import Decoding
from gateway.engines.drafts import Draft
from gateway.engines.genai import GenAIRuntime
from gateway.engines.protocol import Generate, Options

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


def test_drafts_change_nothing_whether_right_or_wrong(exported: Path) -> None:
    generator = GenAIGenerator(exported, threads=1)
    plain = generator.generate(PROMPTS, max_new_tokens=8)
    right = [a.text for a in plain]
    half = [text[: len(text) // 2] for text in right]
    for drafts in (right, half, ["{wrong}"] * 20, [""] * 20):
        assert generator.generate(PROMPTS, max_new_tokens=8, drafts=drafts) == plain


def test_answers_do_not_depend_on_their_neighbours(exported: Path) -> None:
    """The KV cache of a shared prefix is kept from prompt to prompt."""
    generator = GenAIGenerator(exported, threads=1)
    ticks: list[int] = []
    together = generator.generate(PROMPTS, max_new_tokens=8, tick=ticks.append)
    alone = [generator.generate([p], max_new_tokens=8)[0] for p in PROMPTS]
    assert together == alone
    assert ticks == list(range(1, 21))
    assert generator.generate([], max_new_tokens=8) == []


class Watched:
    """onnxruntime-genai, with the length of each pass written down."""

    def __init__(self, og: Any) -> None:
        self._og = og
        self.passes: list[int] = []
        self.GeneratorParams = og.GeneratorParams

    def Generator(self, model: Any, parameters: Any) -> Any:
        real, passes = self._og.Generator(model, parameters), self.passes

        class Generator:
            rewind_to, get_output = real.rewind_to, real.get_output

            def append_tokens(self, tokens: Any) -> None:
                passes.append(tokens.shape[-1])
                real.append_tokens(tokens)

        return Generator()


def test_evaluation_reads_as_the_engine_serves_and_golden_answers_are_stepwise(exported: Path) -> None:
    """Never one token alone: such a pass has other logits."""
    generator = GenAIGenerator(exported, threads=1)
    plain = generator.generate(PROMPTS, max_new_tokens=8)
    watched = Watched(generator._og)
    generator._og = watched
    for drafts in (None, [a.text for a in plain], ["{wrong}"] * 20, [""] * 20):
        assert generator.generate(PROMPTS, max_new_tokens=8, drafts=drafts) == plain
    assert min(watched.passes) >= 2
    watched.passes.clear()
    record_golden(generator, PROMPTS[:3], max_new_tokens=8, base={})
    assert watched.passes.count(1) >= 3 * 6

    runtime = GenAIRuntime(exported, threads=1)
    for prompt, answer in zip(PROMPTS, plain, strict=True):
        asked = Generate(id=1, messages=prompt, options=Options(max_tokens=8, temperature=0), at=0.0)
        decoding = Decoding(asked, runtime.encode(prompt), runtime=runtime, draft=Draft([]), confidence=Confidence())
        decoding.take_cache([])
        while not decoding.finished:
            decoding.step()
        tokens = [token for token in decoding.answer if token not in runtime.ends]
        assert (generator._tokenizer.decode(np.asarray(tokens)), len(decoding.answer)) == (answer.text, answer.tokens)
        assert len(answer.logprobs) == answer.tokens
        assert decoding._logprobs == pytest.approx(answer.logprobs, abs=1e-5)


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
    with pytest.raises(ExportFailed, match=said):
        to_onnx(base, tmp_path, quantization="int8", log=log, builder=builder)


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
