"""Scores: the same numbers offline and live, and a reason for each."""

import socket
from typing import Any

import pytest

from router import Asked, asked, is_json, score
from router.policy_quality import WeightedScore

DEEP = "[" * 600 + "1" + "]" * 600


def text(value: str) -> dict[str, Any]:
    return {"role": "assistant", "content": value}


def calls(*made: tuple[str, str], content: str | None = None) -> dict[str, Any]:
    listed = [{"id": "c", "type": "function", "function": {"name": n, "arguments": a}} for n, a in made]
    return {"role": "assistant", "content": content, "tool_calls": listed}


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
        ("json_fields", '{"a":NaN}', '{"a":1}', 0.0, "invalid_json"),
        ("json_fields", "plain", "plain", 1.0, "equal"),
        ("json_fields", "{}", "[]", 0.0, "differs"),
        ("json_fields", "[" * 100 + "1" + "]" * 100, "[" * 100 + "1" + "]" * 100, 1.0, "equal"),
        ("json_fields", "[" * 1200, "[]", 0.0, "invalid_json"),
        ("json_fields", "[" * 101 + "1" + "]" * 101, "[]", 0.0, "invalid_json"),
        ("json_fields", DEEP, "[]", 0.0, "invalid_json"),
        ("json_fields", DEEP, "plain", 0.0, "differs"),
        ("exact", DEEP, DEEP, 1.0, "equal"),
        ("token_f1", "the red fox", "a red fox", 2 / 3, "differs"),
        ("token_f1", "The RED fox", "the red fox", 1.0, "equal"),
        ("token_f1", "?!", "!!", 0.0, "differs"),
        ("rouge_l", "police killed the gunman", "police kill the gunman", 3 / 4, "differs"),  # Lin 2004, section 3
        ("rouge_l", "the gunman kill police", "police kill the gunman", 2 / 4, "differs"),
        ("rouge_l", "the gunman police killed", "police killed the gunman", 2 / 4, "differs"),
        ("rouge_l", "a b c d e", "b d", 2 * 2 / 7, "differs"),
        ("rouge_l", "B  D", "b d", 1.0, "equal"),
        ("numeric", "so 6 * 7 is 42", "42", 1.0, "equal"),
        ("numeric", "42, as 6 * 7", "42", 0.0, "differs"),
        ("numeric", "about 1,010.0", "1000", 1.0, "equal"),
        ("numeric", "1010.1", "1000", 0.0, "differs"),
        ("numeric", "-5", "\u22125", 1.0, "equal"),
        ("numeric", "0.001", "0", 0.0, "differs"),
        ("numeric", "none at all", "7", 0.0, "differs"),
        ("numeric", "1, 2 and 9", "1, 2, 3", 2 / 3, "differs"),
        ("numeric", "2 then 1", "1 then 2", 1 / 2, "differs"),
        ("numeric", "nobody", "nobody", 1.0, "equal"),
    ],
)
def test_known_scores(name: str, given: str, expected: str, value: float, reason: str) -> None:
    got = score(name, answer=text(given), reference=text(expected), finish_reason="stop")
    assert (got.value, got.reason) == (pytest.approx(value), reason)


@pytest.mark.parametrize(
    ("given", "expected", "value", "reason"),
    [
        (calls(("find", '{"a":1,"b":2}')), calls(("find", '{"b":2,"a":1}')), 1.0, "equal"),
        (calls(("find", '{"a":1,"b":3}')), calls(("find", '{"a":1,"b":2}')), 2 / 3, "differs"),  # name and a, not b
        (calls(("find", '{"a":9}')), calls(("find", '{"a":1}')), 1 / 2, "differs"),  # the name alone
        (calls(("lose", '{"a":1}')), calls(("find", '{"a":1}')), 0.0, "differs"),
        (calls(("find", "{}"), ("find", '{"a":1}')), calls(("find", '{"a":1}')), 2 / 3, "differs"),  # 1 of 2 calls
        (calls(("find", "{}")), calls(("find", "{}"), ("find", "{}")), 2 / 3, "differs"),
        (calls(("b", "{}"), ("a", "{}")), calls(("a", "{}"), ("b", "{}")), 1.0, "equal"),
        (calls(("find", "")), calls(("find", "{}")), 1.0, "equal"),
        (calls(("find", '{"a":')), calls(("find", '{"a":1}')), 1 / 2, "differs"),
        (text("I looked"), calls(("find", "{}")), 0.0, "differs"),
        (text("hello"), text("hi"), 1.0, "equal"),  # neither calls anything
        (calls(("find", "{}")), text("hi"), 0.0, "differs"),
        ({"function_call": {"name": "find", "arguments": "{}"}}, calls(("find", "{}")), 1.0, "equal"),
    ],
)
def test_tool_calls_are_matched_by_name_and_their_arguments_by_leaf(
    given: dict[str, Any], expected: dict[str, Any], value: float, reason: str
) -> None:
    got = score("tool_calls", answer=given, reference=expected, finish_reason="tool_calls")
    assert (got.value, got.reason) == (pytest.approx(value), reason)


def test_each_call_is_matched_once_and_with_the_one_that_it_resembles_most() -> None:
    given = calls(("f", '{"a":1,"b":1}'), ("f", '{"a":2,"b":9}'))
    expected = calls(("f", '{"a":2,"b":2}'), ("f", '{"a":1,"b":1}'))
    got = score("tool_calls", answer=given, reference=expected, finish_reason="tool_calls")
    assert got.value == pytest.approx((1.0 + 2 / 3) / 2)


def test_a_loop_of_calls_is_compared_up_to_a_bound_and_counts_as_too_many() -> None:
    got = score("tool_calls", answer=calls(*[("f", "{}")] * 3000), reference=calls(("f", "{}")), finish_reason=None)
    assert got.value == pytest.approx(2 / 3001)


@pytest.mark.parametrize(
    ("answer", "finish", "reason"),
    [
        (None, "stop", "missing"),
        ({}, "stop", "empty"),
        (text("  "), "stop", "empty"),
        (text('{"a":1}'), "length", "cut_off"),
        (text('{"a":1}'), "content_filter", "content_filter"),
        ({"content": None, "refusal": "I can't"}, "stop", "refusal"),
        (text("I'm sorry, but I can't assist with that."), "stop", "refusal"),
        (calls(("find", "{}")), "tool_calls", "empty"),  # calls are not scored here
    ],
)
@pytest.mark.parametrize("name", ["exact", "json_fields", "token_f1", "rouge_l", "numeric", "embedding"])
def test_bad_answers_score_zero_and_say_why(name: str, answer: dict[str, Any] | None, finish: str, reason: str) -> None:
    got = score(name, answer=answer, reference=text('{"a":1}'), finish_reason=finish)
    assert (got.value, got.reason) == (0.0, reason)


def test_an_answer_of_calls_alone_is_not_empty_where_calls_are_scored() -> None:
    assert score("tool_calls", answer=calls(), reference=calls(("f", "{}")), finish_reason="stop").reason == "empty"
    assert score("tool_calls", answer=calls(("g", "{}")), reference=text("x"), finish_reason="stop").reason == "differs"


@pytest.mark.parametrize(
    "said",
    [
        "I\u2019m sorry, but I can\u2019t help with that.",
        "Sorry, I cannot comply with this request.",
        "I cannot assist you with that",
        "As an AI language model, I cannot give medical advice.",
        "I must decline.",
        "Unfortunately, I am unable to answer that.",
        "We are not able to fulfill this",
    ],
)
def test_refusals_are_known_by_their_opening(said: str) -> None:
    assert score("token_f1", answer=text(said), reference=text("Paris"), finish_reason="stop").reason == "refusal"
    agreed = score("token_f1", answer=text(said), reference=text(said), finish_reason="stop")
    assert agreed.value == 1.0, "the reference refuses too"


@pytest.mark.parametrize(
    "said",
    [
        "I can't find any order under that number.",
        "I'm sorry to hear that! Your parcel is on its way.",
        "Unfortunately, we cannot refund an order after 30 days.",
        "I am unable to see a charge on the 3rd; there is one on the 4th.",
        "He said: I can't help with that.",
        "AI can't help with that yet.",
    ],
)
def test_an_answer_that_says_no_to_something_else_is_no_refusal(said: str) -> None:
    assert score("exact", answer=text(said), reference=text("Paris"), finish_reason="stop").reason == "differs"


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "pattern": {"type": "string", "pattern": "^(x+x+)+y$"}},
    "required": ["a"],
    "additionalProperties": False,
}


def shaped(schema: Any) -> Asked:
    return asked({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}})


@pytest.mark.parametrize("name", ["exact", "json_fields", "token_f1"])
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("no json", "invalid_json"),
        ('```json\n{"a":1}\n```', "invalid_json"),
        ('{"a":"1"}', "schema"),
        ('{"a":1,"b":2}', "schema"),
        ("{}", "schema"),
        ('{"a":1}', "equal"),
    ],
)
def test_an_answer_that_breaks_what_was_asked_for_scores_zero_whatever_the_score(
    name: str, given: str, reason: str
) -> None:
    got = score(name, answer=text(given), reference=text('{"a":1}'), finish_reason="stop", asked=shaped(SCHEMA))
    assert got.reason == reason
    assert got.value == float(reason == "equal")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"$ref": "http://127.0.0.1:9/elsewhere"},
        {"$schema": "http://127.0.0.1:9/unknown", "type": "object"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"properties": {"a": {"multipleOf": 1e-300}}},
        {"patternProperties": {"^(x+x+)+y$": {"type": "string"}}, "additionalProperties": False},
        {"properties": {"a": {"pattern": "^(1+1+)+y$"}}},
    ],
)
def test_a_schema_that_is_wrong_or_points_elsewhere_or_would_run_for_ever_forbids_nothing(schema: Any) -> None:
    got = score("exact", answer=text('{"a":1}'), reference=text('{"a":1}'), finish_reason="stop", asked=shaped(schema))
    assert got.value == 1.0


def test_a_schema_that_points_elsewhere_makes_nobody_ask_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.05)
        schema = {"$ref": f"http://127.0.0.1:{elsewhere.getsockname()[1]}/schema"}
        score("exact", answer=text("{}"), reference=text("{}"), finish_reason="stop", asked=shaped(schema))
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_a_schemas_regular_expressions_are_not_run_but_a_field_named_pattern_is_judged() -> None:
    endless = '{"a":1,"pattern":"' + "x" * 5000 + '"}'
    one = score("exact", answer=text(endless), reference=text('{"a":1}'), finish_reason="stop", asked=shaped(SCHEMA))
    assert one.reason == "differs"
    two = score(
        "exact", answer=text('{"a":1,"pattern":5}'), reference=text('{"a":1}'), finish_reason="stop",
        asked=shaped(SCHEMA),
    )  # fmt: skip
    assert two.reason == "schema"


def test_json_that_was_asked_for_without_a_schema_needs_only_to_be_json() -> None:
    wanted = asked({"response_format": {"type": "json_object"}})
    assert wanted == Asked(json=True)
    got = score("token_f1", answer=text("words"), reference=text('{"a":1}'), finish_reason="stop", asked=wanted)
    assert (got.value, got.reason) == (0.0, "invalid_json")
    same = score("token_f1", answer=text('{"a":1}'), reference=text('{"a":1}'), finish_reason="stop", asked=wanted)
    assert same.value == 1.0


@pytest.mark.parametrize(("bad", "why"), [("words", "not the JSON"), ('{"b":1}', "breaks the schema")])
def test_a_reference_that_breaks_what_was_asked_for_is_none(bad: str, why: str) -> None:
    for given in ('{"a":1}', "words"):
        with pytest.raises(ValueError, match=why):
            score("exact", answer=text(given), reference=text(bad), finish_reason="stop", asked=shaped(SCHEMA))


def test_what_a_request_asks_for_is_read_from_its_body() -> None:
    tools = [{"type": "function", "function": {"name": "find", "parameters": {}}}, {"type": "web_search"}, "junk"]
    body = {"tools": tools, "functions": [{"name": "old"}], "response_format": {"type": "text"}}
    assert asked(body) == Asked(tools=("find", "old"))
    assert shaped(SCHEMA) == Asked(json=True, schema=SCHEMA)
    for junk in ({}, {"response_format": "json"}, {"response_format": {"type": ["x"]}}, {"tools": {"a": 1}}):
        assert asked(junk) == Asked()
    assert shaped("junk") == Asked(json=True)


def test_a_call_of_a_tool_that_is_not_offered_is_a_bad_answer() -> None:
    offered = Asked(tools=("find",))
    got = score(
        "tool_calls", answer=calls(("find", "{}"), ("lose", "{}")), reference=calls(("find", "{}")),
        finish_reason="tool_calls", asked=offered,
    )  # fmt: skip
    assert (got.value, got.reason) == (0.0, "unknown_tool")


def weighted(*named: tuple[str, float], **more: float) -> tuple[WeightedScore, ...]:
    return tuple(WeightedScore.model_validate({"score": n, "weight": w, **more}) for n, w in named)


def test_a_list_of_scores_is_their_weighted_mean_with_the_lowest_ones_reason() -> None:
    spec = weighted(("exact", 1.0), ("token_f1", 3.0))
    got = score(spec, answer=text("the red fox"), reference=text("a red fox"), finish_reason="stop")
    assert (got.value, got.reason) == (pytest.approx(0.75 * 2 / 3), "differs")
    same = score(spec, answer=text("x"), reference=text("x"), finish_reason="stop")
    assert (same.value, same.reason) == (1.0, "equal")
    bad = score(spec, answer=text("x"), reference=text("x"), finish_reason="length")
    assert (bad.value, bad.reason) == (0.0, "cut_off")


def test_invalid_json_spoils_a_whole_list_of_scores() -> None:
    spec = weighted(("json_fields", 1.0), ("token_f1", 1.0))
    got = score(spec, answer=text('a 1 "a": 1'), reference=text('{"a": 1}'), finish_reason="stop")
    assert (got.value, got.reason) == (0.0, "invalid_json")


def test_of_a_list_the_parts_that_the_reference_says_nothing_of_are_left_out() -> None:
    spec = weighted(("tool_calls", 1.0), ("token_f1", 9.0))
    only = calls(("find", "{}"))
    assert score(spec, answer=only, reference=only, finish_reason="tool_calls").value == 1.0
    both = calls(("find", "{}"), content="let me see")
    silent = score(spec, answer=only, reference=both, finish_reason="tool_calls")
    assert silent.value == pytest.approx(0.1)
    with pytest.raises(ValueError, match="no text"):
        score(weighted(("exact", 1.0), ("token_f1", 1.0)), answer=only, reference=only, finish_reason=None)


def test_a_list_says_how_near_numbers_must_be() -> None:
    wide, narrow = weighted(("numeric", 1.0), tolerance=0.2), weighted(("numeric", 1.0), tolerance=0.0)
    assert score(wide, answer=text("119"), reference=text("100"), finish_reason="stop").value == 1.0
    assert score(narrow, answer=text("100.1"), reference=text("100"), finish_reason="stop").value == 0.0


def test_meaning_is_compared_by_the_given_similarity() -> None:
    seen: list[tuple[str, str]] = []

    def similarity(a: str, b: str) -> float:
        seen.append((a, b))
        return 1.5 if "near" in a else 0.4

    got = score("embedding", answer=text("a"), reference=text("b"), finish_reason="stop", similarity=similarity)
    assert (got.value, got.reason) == (0.4, "differs")
    near = score("embedding", answer=text("near"), reference=text("b"), finish_reason="stop", similarity=similarity)
    assert near.value == 1.0
    assert score("embedding", answer=text("b "), reference=text("b"), finish_reason="stop", similarity=similarity) == (
        score("exact", answer=text("b"), reference=text("b"), finish_reason="stop")
    )
    assert seen == [("a", "b"), ("near", "b")]
    with pytest.raises(TypeError, match="pass similarity="):
        score("embedding", answer=text("a"), reference=text("b"), finish_reason="stop")


def test_text_parts_are_read_as_their_text() -> None:
    parts = {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert score("exact", answer=parts, reference=text("ab"), finish_reason="stop").value == 1.0


@pytest.mark.parametrize("given", [DEEP, "[]", "plain", ""])
@pytest.mark.parametrize("expected", [DEEP, "[" * 100_000 + "]" * 100_000])
def test_a_reference_nested_too_deeply_is_an_error_not_a_score(given: str, expected: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        score("json_fields", answer=text(given), reference=text(expected), finish_reason="stop")


def test_what_is_nested_too_deeply_to_be_read_is_no_json() -> None:
    assert is_json("[[1]]")
    assert not is_json("[" * 100_000 + "]" * 100_000)


@pytest.mark.parametrize("reference", [None, {"content": None}, text(" \n"), calls(("f", "{}"))])
def test_a_reference_without_text_is_an_error_not_a_score(reference: dict[str, Any] | None) -> None:
    with pytest.raises(ValueError, match="no text"):
        score("exact", answer=text("a"), reference=reference, finish_reason="stop")


def test_an_unknown_score_is_named_with_those_that_there_are() -> None:
    with pytest.raises(KeyError, match="no score 'bleu'; there are: embedding, exact"):
        score("bleu", answer=text("a"), reference=text("a"), finish_reason="stop")
