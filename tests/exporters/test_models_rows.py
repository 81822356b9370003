"""Sequences side by side over a tiny exported model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from exporters.models import ExportFailed, to_onnx
from exporters.models.kv_cache import KvCache
from exporters.models.rows import Rows, pieces
from exporters.models.to_onnx import build

pytestmark = pytest.mark.train

PROMPTS = [[(7 * row + 3 * at) % 500 for at in range(length)] for row, length in enumerate((37, 50, 2, 90, 3))]
THEN = [5, 400, 7]


@pytest.fixture(scope="module", params=["int8", "int4"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "onnx").mkdir()
    base = tiny_model.build(folder / "tiny")
    to_onnx(base, folder / "onnx", quantization=request.param, log=folder / "export.log")
    return folder / "onnx"


def alone(rows: Rows, prompt: list[int]) -> list[bytes]:
    """The logits after a prompt and after each of THEN."""
    rows.share(0, [0])
    return [rows.read(0, prompt).tobytes(), *(rows.step([token])[0].tobytes() for token in THEN)]


def test_logits_are_those_of_onnxruntime_genai(exported: Path) -> None:
    import onnxruntime_genai as og

    model, rows = og.Model(str(exported)), Rows(exported, threads=1)
    for prompt in PROMPTS:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=200, do_sample=False)
        generator = og.Generator(model, parameters)
        for tokens, found in zip([prompt, *([token] for token in THEN)], alone(rows, prompt), strict=True):
            generator.append_tokens(np.asarray(tokens, dtype=np.int32))
            wanted = np.asarray(generator.get_logits(), dtype=np.float32).reshape(-1)
            assert np.frombuffer(found, np.float32) == pytest.approx(wanted, abs=1e-4)


def test_a_row_does_not_depend_on_its_company(exported: Path) -> None:
    rows = Rows(exported, threads=1)
    wanted = [alone(rows, prompt) for prompt in PROMPTS]
    found = [[rows.read(row, prompt).tobytes()] for row, prompt in enumerate(PROMPTS) if rows.share(row, [0]) == 0]
    for number, token in enumerate(THEN):
        together = len(PROMPTS) - number  # one leaves after each step
        for row, logits in enumerate(rows.step([token] * together)):
            found[row].append(logits.tobytes())
    assert found == [all_of[: len(some)] for all_of, some in zip(wanted, found, strict=True)]


def test_a_prompt_does_not_depend_on_how_it_is_cut_nor_on_where_its_beginning_comes_from(exported: Path) -> None:
    rows = Rows(exported, threads=1)
    prompt = PROMPTS[3]
    first, *_ = alone(rows, prompt)
    for most in (3, 44, 89):
        rows.share(0, [0])
        assert [rows.read(0, piece) for piece in pieces(prompt, most)][-1].tobytes() == first
    shared = rows.share(2, prompt)
    assert shared == len(prompt) - 2
    assert rows.read(2, prompt[shared:]).tobytes() == first
    rows.swap(2, 4)
    assert rows.length(4) == len(prompt)
    assert rows.share(4, [*prompt, 1, 2]) == len(prompt)
    assert rows.share(3, [*prompt[:10], 499, 1]) == 10


def test_what_was_appended_step_by_step_is_not_shared(exported: Path) -> None:
    """Its cache holds other bits than a prompt's."""
    rows = Rows(exported, threads=1)
    rows.read(0, PROMPTS[0])
    rows.step([5])
    rows.step([6])
    assert rows.share(1, [*PROMPTS[0], 5, 6, 7, 8]) == len(PROMPTS[0])


def test_rows_that_nobody_needs_are_given_up_for_others_and_read_anew(exported: Path) -> None:
    free = Rows(exported, threads=1)
    token = 1e9 / free.most  # bytes
    rows = Rows(exported, threads=1, cache_gb=150.5 * token / 1e9)
    assert (rows.most, rows.context_length) == (150, 150)
    wanted = alone(rows, PROMPTS[3])
    rows.share(1, [0])
    rows.read(1, PROMPTS[0])
    rows.clear(0)
    rows.clear(1)
    assert (rows.length(0), rows.length(1)) == (len(PROMPTS[3]), len(PROMPTS[0]))
    assert rows.room(150 - len(PROMPTS[3]) - len(PROMPTS[0]) - len(THEN))
    assert rows.room(100)
    assert (rows.length(0), rows.length(1)) == (0, len(PROMPTS[0])), "the longest goes first"
    assert rows.share(0, PROMPTS[3]) == 0
    assert alone(rows, PROMPTS[3]) == wanted
    assert rows.room(50)
    assert rows.length(1) == 0
    assert not rows.room(58), "what is needed stays"
    assert rows.length(0) == len(PROMPTS[3]) + len(THEN)


def test_memory_is_that_of_the_tokens_that_are_held(exported: Path) -> None:
    """Of a cache that is far larger than what this process holds otherwise."""
    cache = KvCache(layers=8, rows=4, shape=(4, 4096, 64), kind=np.dtype(np.float32), most_bytes=1e9)
    token = 2 * 8 * 4 * 64 * 4
    assert cache.most == 10**9 // token

    def held() -> int:
        """Bytes of this process's anonymous memory."""
        [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
        return int(line.split()[1]) * 1024

    before = held()
    for row in (0, 1):
        for array in cache.arrays:
            array[row, :, :2000] = 1
        cache.take(row, 2000)
    assert held() - before == pytest.approx(4000 * token, rel=0.1)
    assert cache.room(cache.most - 1500, [500, 1000, 0, 0])
    assert held() - before == pytest.approx(1500 * token, rel=0.2)
    assert all((array[0, :, :500] == 1).all() and (array[1, :, :1000] == 1).all() for array in cache.arrays)
    assert not cache.room(cache.most - 1499, [500, 1000, 0, 0])


def test_a_cache_too_small_to_serve_is_refused(exported: Path) -> None:
    with pytest.raises(ExportFailed, match=r"hold 0 tokens' keys and values of .*: too few to serve"):
        Rows(exported, threads=1, cache_gb=1e-9)


def test_a_cache_in_float16_is_refused(exported: Path, tmp_path: Path) -> None:
    build(exported.parent / "tiny", tmp_path, ["-p", "fp16", "--extra_options", "windowed_kv_cache=false"],
          log=exported.parent / "export.log")  # fmt: skip
    with pytest.raises(ExportFailed, match=r"the cache is of tensor\(float16\); tensor\(float\) is known"):
        Rows(tmp_path, threads=1)


def test_more_than_the_context_is_refused(exported: Path) -> None:
    rows = Rows(exported, threads=1, count=1)
    with pytest.raises(RuntimeError, match="513 tokens are more than this model's context of 512"):
        rows.read(0, [1] * 513)


def test_a_graph_that_is_no_decoder_is_refused_with_the_inputs_that_are_not_known(
    exported: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(exported, broken)
    config = broken / "genai_config.json"
    settings = json.loads(config.read_text())
    settings["model"]["decoder"]["num_hidden_layers"] = 1
    config.write_text(json.dumps(settings))
    with pytest.raises(ExportFailed, match=r"past_key_values\.1\.key"):
        Rows(broken, threads=1)


@pytest.mark.parametrize(("length", "most"), [(0, 5), (1, 5), (5, 5), (6, 5), (7, 5), (11, 5), (4, 3)])
def test_no_piece_of_a_prompt_is_one_token(length: int, most: int) -> None:
    cut = list(pieces(list(range(length)), most))
    assert [token for piece in cut for token in piece] == list(range(length))
    assert all(1 < len(piece) <= most or length == 1 for piece in cut)
