"""A foreign exchange becomes the collector's frame: one id whatever happens, and only what may be learnt from."""

import json
from typing import Any

import msgspec
import pytest

from collector.record import Usage
from gateway.body import parse as parse_body
from gateway.cluster import cluster_key
from retort.imports import Foreign, Unusable
from retort.imports.exchange import MOST_BYTES, Target, frame
from router import Arm, RoutePolicy

SALT = bytes(32)
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]


def target(**changes: Any) -> Target:
    policy = RoutePolicy(teachers=("openai/gpt-4o", "other/org/model"))
    made = Target(
        route="support", policy=policy, format="openai", teacher="openai/gpt-4o", allowed=policy.teachers,
        salt=SALT, now=1000.0,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def foreign(**changes: Any) -> Foreign:
    made = Foreign(messages=MESSAGES, answer={"role": "assistant", "content": "Yes."})
    return msgspec.structs.replace(made, **changes)


def unusable(made: Foreign, to: Target | None = None) -> str:
    with pytest.raises(Unusable) as error:
        frame(made, to or target())
    return str(error.value)


def test_an_exchange_is_the_teachers_outside_every_population_and_marked_as_imported() -> None:
    header, request, answer = frame(foreign(at=5.0, parameters={"stream": True, "user": "u"}), target())
    assert (header.imported, header.at, header.stream, header.capture) == ("openai", 5.0, True, True)
    decided = header.decision
    assert (decided.arm, decided.eligible, decided.in_service, decided.shadows) == (Arm.TEACHER, False, None, ())
    assert (header.served.upstream, header.served.status) == ("openai/gpt-4o", 200)
    assert (header.request_bytes, header.served.body_bytes) == (len(request), len(answer))
    assert json.loads(request) == {"model": "gpt-4o", "messages": MESSAGES, "stream": True, "user": "u"}
    assert json.loads(answer) == {
        "object": "chat.completion",
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
    }
    assert frame(foreign(), target())[0].at == 1000.0, "of a record without a time: now"


def test_the_same_record_has_the_same_id_and_no_other_has() -> None:
    again = target(now=2.0, any_model=True, aliases=("x",))
    name = frame(foreign(), target())[0].id
    assert name == frame(foreign(), again)[0].id
    assert name.startswith("import-")
    assert frame(foreign(id="a"), target())[0].id == frame(foreign(id="a", messages=MESSAGES[1:]), target())[0].id
    others = [
        frame(foreign(id="a"), target()), frame(foreign(id="b"), target()), frame(foreign(), target(salt=b"1" * 32)),
        frame(foreign(), target(route="other")), frame(foreign(), target(format="stored")),
        frame(foreign(messages=MESSAGES[1:]), target()), frame(foreign(parameters={"seed": 1}), target()),
    ]  # fmt: skip
    assert len({name, *(header.id for header, *_ in others)}) == 1 + len(others)


def test_a_conversation_has_the_key_that_the_gateway_gives_it() -> None:
    header, request, _ = frame(foreign(session="s-9"), target())
    body = parse_body(request, whole_up_to=1 << 20)
    assert header.cluster == cluster_key(SALT, body, b"s-9")
    assert frame(foreign(), target())[0].cluster == cluster_key(SALT, body, None)
    longer = [*MESSAGES, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And?"}]
    assert frame(foreign(messages=longer), target())[0].cluster == frame(foreign(), target())[0].cluster


@pytest.mark.parametrize(
    ("models", "teacher"),
    [
        ((), "openai/gpt-4o"),
        (("gpt-4o",), "openai/gpt-4o"),
        (("openai/gpt-4o",), "openai/gpt-4o"),
        (("azure/gpt-4o",), "openai/gpt-4o"),
        (("gpt-4o-2024-08-06",), "openai/gpt-4o"),
        (("azure/prod", "gpt-4o-20240806"), "openai/gpt-4o"),
        (("org/model",), "other/org/model"),
        (("other/org/model-2025-01-01",), "other/org/model"),
        (("my-deployment",), "openai/gpt-4o"),
    ],
)
def test_the_teacher_is_known_by_its_names(models: tuple[str, ...], teacher: str) -> None:
    header, _, answer = frame(foreign(models=models), target(aliases=("my-deployment",)))
    assert header.served.upstream == teacher
    assert json.loads(answer)["model"] == (models[-1] if models else "gpt-4o")


def test_what_was_asked_for_and_did_not_answer_is_no_teacher() -> None:
    assert unusable(foreign(models=("gpt-4o", "claude-3-haiku"))) == "other_model"


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4o-mini-2024-07-18", "model", "gpt-4", "prod", "gpt-4o-2024"])
def test_another_models_answer_is_left_out_unless_any_may_be(model: str) -> None:
    assert unusable(foreign(models=(model,))) == "other_model"
    header, request, answer = frame(foreign(models=(model,)), target(any_model=True))
    assert header.served.upstream is None
    assert model not in repr(header), "a name from the source is a text like any other"
    assert json.loads(request)["model"] == json.loads(answer)["model"] == model


def test_of_a_provider_whose_terms_forbid_it_nothing_is_taken() -> None:
    to = target(allowed=("openai/gpt-4o",))
    assert unusable(foreign(models=("org/model",)), to) == "distillation_not_allowed"
    assert unusable(foreign(models=("org/model",)), msgspec.structs.replace(to, any_model=True)) == (
        "distillation_not_allowed"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "stop"),
        ({"finish_reason": "length"}, "length"),
        ({"answer": {"tool_calls": [{"id": "c"}]}}, "tool_calls"),
        ({"parameters": {"max_tokens": 4}, "usage": Usage(completion_tokens=4)}, "length"),
        ({"parameters": {"max_completion_tokens": "4"}, "usage": Usage(completion_tokens=9)}, "length"),
        ({"parameters": {"max_tokens": 4}, "usage": Usage(completion_tokens=3)}, "stop"),
        ({"parameters": {"max_tokens": "inf"}, "usage": Usage(completion_tokens=3)}, "stop"),
        ({"parameters": {"max_tokens": 4}}, "stop"),
    ],
)
def test_how_an_answer_ended_is_what_the_source_says_or_its_length_shows(changes: Any, reason: str) -> None:
    _, _, answer = frame(foreign(**changes), target())
    assert json.loads(answer)["choices"][0]["finish_reason"] == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"consent": False}, "no_consent"),
        ({"answer": {"role": "assistant", "content": ""}}, "no_answer"),
        ({"answer": {"role": "assistant", "content": "\ud83d"}}, "unreadable"),
        ({"session": "\udcff"}, "unreadable"),
        ({"answer": {"content": "x" * MOST_BYTES}}, "too_large"),
    ],
)
def test_what_can_not_be_used_says_why(changes: Any, reason: str) -> None:
    assert unusable(foreign(**changes)) == reason
