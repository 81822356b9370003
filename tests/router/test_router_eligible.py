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
