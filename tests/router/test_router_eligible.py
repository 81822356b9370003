"""A request that a student can't answer is told by its reason."""

from typing import Any

import pytest

from router import RoutePolicy, ineligible

POLICY = RoutePolicy.model_validate({"teachers": ["o/m"], "student": {"max_prompt_bytes": 500}})
PLAIN: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n": 1},
        {"stream": True},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
        {"logprobs": True},
        {"tools": None},
        {"presence_penalty": 0, "frequency_penalty": 0.0},
    ],
)
def test_a_text_request_is_eligible(more: dict[str, Any]) -> None:
    assert ineligible(POLICY, {**PLAIN, **more}, 100) is None


def test_text_parts_are_text() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}
    assert ineligible(POLICY, body, 100) is None


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": []}, "functions"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -0.1}, "presence_penalty"),
        ({"messages": [{"role": "function", "content": "x"}]}, "content"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "content"),
        ({"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]}, "content"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": "json_object"}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": []}, "no_messages"),
        ({"messages": "hi"}, "no_messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "content"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "content"),
    ],
)
def test_what_a_student_may_not_answer_is_named(more: dict[str, Any], reason: str) -> None:
    assert ineligible(POLICY, {**PLAIN, **more}, 100) == reason


def test_a_long_request_and_a_route_without_a_student_are_not_eligible() -> None:
    assert ineligible(POLICY, PLAIN, 501) == "too_long"
    assert ineligible(RoutePolicy(teachers=("o/m",)), PLAIN, 100) == "no_student"


def test_a_student_that_may_choose_whole_answers_tells_no_log_probabilities_of_tokens() -> None:
    for recipe, reason in (("lora", None), ("linear", "logprobs"), ("encoder", "logprobs"), ("auto", "logprobs")):
        policy = RoutePolicy.model_validate({"teachers": ["o/m"], "student": {"recipe": recipe}})
        assert ineligible(policy, {**PLAIN, "logprobs": True}, 100) == reason
        assert ineligible(policy, {**PLAIN, "logprobs": False}, 100) is None


CALLING = RoutePolicy.model_validate(
    {
        "teachers": ["o/m"],
        "student": {"max_prompt_bytes": 500},
        "quality": {"score": [{"score": "tool_calls", "weight": 1}, {"score": "exact", "weight": 1}]},
    }
)
TOOLS = [{"type": "function", "function": {"name": "look"}}]
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "look"}}]}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"tools": TOOLS}, None),
        ({"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True}, None),
        ({"tools": TOOLS, "tool_choice": "none"}, None),
        ({"messages": [*PLAIN["messages"], CALLED, {"role": "tool", "content": "x"}]}, None),
        ({"tools": TOOLS, "tool_choice": "required"}, "tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "look"}}}, "tools"),
        ({"tools": TOOLS, "parallel_tool_calls": False}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools"),
        ({"tools": {"type": "function"}}, "tools"),
        ({"tools": TOOLS, "logprobs": True}, "logprobs"),
        ({"functions": [{"name": "look"}]}, "functions"),
    ],
)
def test_functions_go_to_a_student_that_has_learnt_to_call(more: dict[str, Any], reason: str | None) -> None:
    assert ineligible(CALLING, {**PLAIN, **more}, 100, tools=True) == reason
    assert ineligible(CALLING, {**PLAIN, **more}, 100) is not None, "the others never get them"


def test_tools_are_learnt_where_the_score_compares_calls_and_the_student_writes() -> None:
    assert CALLING.learns_tools
    assert not POLICY.learns_tools
    base = CALLING.model_dump()
    for recipe, learns in (("auto", True), ("linear", False), ("encoder", False)):
        changed = RoutePolicy.model_validate({**base, "student": {"recipe": recipe}})
        assert changed.learns_tools == learns
    assert RoutePolicy.model_validate({**base, "quality": {"score": "tool_calls"}}).learns_tools
    assert not RoutePolicy.model_validate({**base, "student": None}).learns_tools
