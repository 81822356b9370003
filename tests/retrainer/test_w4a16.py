"""Which of AWQ and GPTQ is served, with methods that are played."""

from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.models import ExportFailed, Parity
from exporters.models.errors import ExportCutShort
from exporters.models.four_bits import Method
from retrainer.recipes.w4a16 import attempt, remove_others


def near(kl: float) -> Parity:
    return Parity(kl=kl, top1=0.9, tokens=8, answers=2)


def writing(**found: Parity | BaseException) -> tuple[Callable[[Method], Parity], list[str]]:
    asked: list[str] = []

    def write(method: Method) -> Parity:
        asked.append(method)
        one = found[method]
        if isinstance(one, BaseException):
            raise one
        return one

    return write, asked


@pytest.mark.parametrize(
    ("awq", "gptq", "best"),
    [(0.1, 0.2, "awq"), (0.2, 0.1, "gptq"), (0.1, 0.1, "awq"), (float("nan"), 9.0, "gptq"), (9.0, float("nan"), "awq")],
)
def test_the_smaller_mean_kl_decides(tmp_path: Path, awq: float, gptq: float, best: str) -> None:
    write, asked = writing(awq=near(awq), gptq=near(gptq))
    tried = attempt(tmp_path, write)
    assert (tried.best, asked) == (best, ["awq", "gptq"])


def test_what_was_compared_before_it_was_killed_is_not_made_again(tmp_path: Path) -> None:
    write, asked = writing(awq=near(0.1), gptq=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        attempt(tmp_path, write)
    write, asked = writing(gptq=near(0.05))
    first = attempt(tmp_path, write)
    assert (asked, first.best, list(first.near)) == (["gptq"], "gptq", ["awq", "gptq"])
    write, asked = writing()
    assert (attempt(tmp_path, write), asked) == (first, [])


def test_where_one_method_fails_the_other_is_served_and_it_is_told(tmp_path: Path) -> None:
    write, _ = writing(awq=ExportFailed("no such layers"), gptq=near(0.3))
    tried = attempt(tmp_path, write)
    assert tried.best == "gptq"
    assert tried.told()["awq"] == {"failed": "no such layers"}
    assert tried.told()["gptq"]["kl"] == 0.3
    write, asked = writing(awq=near(0.2))
    assert (attempt(tmp_path, write).best, asked) == ("awq", ["awq"]), "it is tried again"


def test_what_the_machine_cut_short_says_nothing_of_the_method_and_is_tried_again(tmp_path: Path) -> None:
    write, asked = writing(awq=ExportCutShort("No space left on device"), gptq=near(0.3))
    with pytest.raises(ExportCutShort) as caught:
        attempt(tmp_path, write)
    assert caught.value.retryable
    assert asked == ["awq", "gptq"]
    write, asked = writing(awq=near(0.2))
    assert (attempt(tmp_path, write).best, asked) == ("awq", ["awq"])


def test_a_method_that_the_machine_never_has_room_for_has_failed(tmp_path: Path) -> None:
    for _ in range(2):
        write, _ = writing(awq=ExportCutShort("no memory"), gptq=near(0.3))
        with pytest.raises(ExportCutShort):
            attempt(tmp_path, write)
    write, _ = writing(awq=ExportCutShort("no memory"))
    tried = attempt(tmp_path, write)
    assert (tried.best, tried.failed) == ("gptq", {"awq": "no memory"})


def test_where_both_fail_both_reasons_are_told(tmp_path: Path) -> None:
    write, _ = writing(awq=ExportFailed("no such layers"), gptq=ExportFailed("not invertible"))
    with pytest.raises(ExportFailed, match="neither AWQ nor GPTQ wrote a model: no such layers; not invertible"):
        attempt(tmp_path, write)


def test_what_the_other_left_goes(tmp_path: Path) -> None:
    for name in ("awq", "awq-onnx", "gptq", "gptq-onnx", "merged"):
        (tmp_path / name).mkdir()
    remove_others("gptq", lambda method: tmp_path / method, lambda method: tmp_path / f"{method}-onnx")
    assert {f.name for f in tmp_path.iterdir()} == {"gptq", "gptq-onnx", "merged"}
