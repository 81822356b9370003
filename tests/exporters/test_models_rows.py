"""Sequences side by side over a tiny exported model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_model

from exporters.models import ExportFailed, to_onnx
from exporters.models.rows import KEPT, Rows, pieces

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


def test_a_long_row_gives_its_memory_back_and_is_read_anew(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.models.rows.KEPT", 60)
    assert KEPT > 60
    rows = Rows(exported, threads=1)
    wanted = alone(rows, PROMPTS[3])
    rows.share(1, [0])
    rows.read(1, PROMPTS[0])
    rows.clear(0)
    rows.clear(1)
    assert (rows.length(0), rows.length(1)) == (0, len(PROMPTS[0]))
    assert rows.share(0, PROMPTS[3]) == 0
    assert alone(rows, PROMPTS[3]) == wanted


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
