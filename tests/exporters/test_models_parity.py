"""How near an export is to its source: by hand, and of models that are not their source."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_model

from exporters.models import ExportFailed, GenAIGenerator, Parity, parity, require, to_onnx
from exporters.models.parity import choices_parity, hf_reader

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("parity") / "tiny")


ROWS = [([1, 5, 9, 30], [7, 8, 9]), ([1, 6], [40]), ([1, 2, 3], [])]


def test_a_model_is_its_own_equal(base: Path) -> None:
    found = parity(base, lambda: hf_reader(base), ROWS)
    assert (found.kl, found.top1, found.tokens, found.answers) == (pytest.approx(0.0, abs=1e-6), 1.0, 4, 2)
    assert (found.of, parity(base, lambda: hf_reader(base), ROWS, of="training").of) == ("held-out", "training")
    with pytest.raises(ExportFailed, match="nothing to compare the exported model on: no held-out answer, and none"):
        parity(base, lambda: pytest.fail("nothing to compare"), ROWS[2:])


def test_divergence_and_agreement_by_hand(base: Path) -> None:
    """Against a model that finds token 3 twice as likely as any other of 512."""
    uniform = np.zeros(512, dtype=np.float32)
    uniform[3] = np.log(2.0)
    found = parity(base, lambda: lambda prompt, answer: np.stack([uniform] * len(answer)), ROWS)
    read, expected, same = hf_reader(base), 0.0, 0
    for prompt, answer in ROWS[:2]:
        for n in range(len(answer)):
            logits = read([*prompt, *answer[:n]], [0])[0].astype(np.float64)  # by itself, and as the next token
            p = np.exp(logits) / np.exp(logits).sum()
            expected += float((p * np.log(p)).sum() + np.log(513.0) - p[3] * np.log(2.0)) / 4
            same += int(p.argmax() == 3)
    assert found.kl == pytest.approx(expected, rel=1e-4)
    assert found.top1 == same / 4


def test_long_answers_and_many_are_cut(base: Path) -> None:
    seen: list[int] = []

    def read(prompt: Any, answer: Any) -> Any:
        seen.append(len(answer))
        return np.zeros((len(answer), 512), dtype=np.float32)

    found = parity(base, lambda: read, [([1], list(range(100)))] * 20)
    assert seen == [64] * 8
    assert (found.tokens, found.answers) == (512, 8)


def test_choices_are_compared_field_by_field() -> None:
    """Two answers, a field of two values and one of three; one of the four choices is another."""
    even, sure = [0.0, 0.0], [np.log(3.0), 0.0]
    exact = [[*sure, 0.0, 0.0, 1.0], [*even, 2.0, 0.0, 0.0]]
    found = choices_parity(exact, [[*even, 0.0, 0.0, 1.0], [*even, 0.0, 2.0, 0.0]], (2, 3))
    first = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    p = np.exp([2.0, 0.0]) / (np.exp(2.0) + 2.0)
    assert found.kl == pytest.approx((first + 2.0 * (p[0] - p[1])) / 4)
    assert (found.top1, found.tokens, found.answers) == (0.75, 4, 2)
    assert choices_parity(exact, exact, (2, 3), of="training").of == "training"
    with pytest.raises(ExportFailed, match="nothing to compare"):
        choices_parity([], [], (2, 3))


def test_what_is_past_a_bound_is_refused_with_its_numbers(base: Path) -> None:
    other = tiny_model.build(base.parent / "other", seed=5)
    rows = [(list(range(3, 40 + n)), [5, 6, 7, 8]) for n in range(8)]
    found = parity(base, lambda: hf_reader(other), rows)
    with pytest.raises(ExportFailed, match=r"not its source: a mean KL of .* nats .* and the same likeliest token at "):
        require(found, max_kl=1.0, min_top1=0.5)
    require(found, max_kl=100.0, min_top1=0.0)
    at = Parity(kl=1.0, top1=0.5, tokens=4, answers=1)
    require(at, max_kl=1.0, min_top1=0.5)
    with pytest.raises(
        ExportFailed, match=r"same likeliest token at 50.0% of places, where 51% are asked for \(on 4 to"
    ):
        require(at, max_kl=1.0, min_top1=0.51)
    with pytest.raises(ExportFailed, match=r"of 1 training answers; retrain.parity\)"):
        require(msgspec.structs.replace(at, of="training"), max_kl=0.5, min_top1=0.5)
    with pytest.raises(ExportFailed, match="a mean KL of nan"):
        require(Parity(kl=float("nan"), top1=1.0, tokens=4, answers=1), max_kl=1.0, min_top1=0.5)


def test_a_graph_is_read_token_by_token_as_its_source(base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    to_onnx(base, tmp_path / "out", quantization="int8", log=tmp_path / "log")
    rows = [(list(range(3, 30 + n)), [5 + n, 6, 7]) for n in range(8)]
    found = parity(base, lambda: GenAIGenerator(tmp_path / "out", threads=1).logits, rows)
    assert 0.0 < found.kl < 0.05
    assert found.top1 > 0.8
