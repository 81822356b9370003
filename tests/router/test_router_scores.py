"""Scores: the same numbers offline and live, and a reason for each."""

import pytest

from router import is_json, score

DEEP = "[" * 600 + "1" + "]" * 600


def text(value: str) -> dict[str, str]:
    return {"role": "assistant", "content": value}


@pytest.mark.parametrize(
    ("name", "given", "expected", "value", "reason"),
    [
        ("exact", " yes ", "yes", 1.0, "equal"),
        ("exact", "Yes", "yes", 0.0, "differs"),
        ("json_fields", '{"a":1, "b":[2]}', '{"b": [2], "a": 1}', 1.0, "equal"),
        ("json_fields", '{"a":1,"b":2}', '{"a":1,"b":3}', 0.5, "differs"),
        ("json_fields", '{"a":1,"b":2,"c":3}', '{"a":1}', 0.5, "differs"),
        ("json_fields", '{"a":"1"}', '{"a":1}', 0.0, "differs"),
        ("json_fields", '{"a":1', '{"a":1}', 0.0, "invalid_json"),
        ("json_fields", "plain", "plain", 1.0, "equal"),
        ("json_fields", "{}", "[]", 0.0, "differs"),
        ("json_fields", "[" * 100 + "1" + "]" * 100, "[" * 100 + "1" + "]" * 100, 1.0, "equal"),
        ("json_fields", "[" * 1200, "[]", 0.0, "invalid_json"),
        ("json_fields", DEEP, "[]", 0.0, "invalid_json"),
        ("json_fields", DEEP, "plain", 0.0, "differs"),
        ("exact", DEEP, DEEP, 1.0, "equal"),
        ("token_f1", "the red fox", "a red fox", 2 / 3, "differs"),
        ("token_f1", "The RED fox", "the red fox", 1.0, "equal"),
    ],
)
def test_known_scores(name: str, given: str, expected: str, value: float, reason: str) -> None:
    got = score(name, answer=text(given), reference=text(expected), finish_reason="stop")
    assert (got.value, got.reason) == (pytest.approx(value), reason)


@pytest.mark.parametrize(
    ("answer", "finish", "reason"),
    [
        (None, "stop", "missing"),
        (text("  "), "stop", "empty"),
        (text('{"a":1}'), "length", "cut_off"),
        ({"content": None, "refusal": "I can't"}, "stop", "refusal"),
    ],
)
def test_bad_answers_score_zero_and_say_why(answer: dict[str, str] | None, finish: str, reason: str) -> None:
    got = score("json_fields", answer=answer, reference=text('{"a":1}'), finish_reason=finish)
    assert (got.value, got.reason) == (0.0, reason)


def test_text_parts_are_read_as_their_text() -> None:
    parts = {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert score("exact", answer=parts, reference=text("ab"), finish_reason="stop").value == 1.0


@pytest.mark.parametrize("given", [DEEP, "[]", "plain"])
@pytest.mark.parametrize("expected", [DEEP, "[" * 100_000 + "]" * 100_000])
def test_a_reference_nested_too_deeply_is_an_error_not_a_score(given: str, expected: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        score("json_fields", answer=text(given), reference=text(expected), finish_reason="stop")


def test_what_is_nested_too_deeply_to_be_read_is_no_json() -> None:
    assert is_json("[[1]]")
    assert not is_json("[" * 100_000 + "]" * 100_000)


def test_a_reference_without_text_is_an_error_not_a_score() -> None:
    with pytest.raises(ValueError, match="no text"):
        score("exact", answer=text("a"), reference={"content": None}, finish_reason="stop")
