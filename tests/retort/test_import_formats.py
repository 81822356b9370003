"""Each system's records as exchanges: what was asked, what was answered, when, by whom and for whom."""

import json
from pathlib import Path
from typing import Any

import pytest

from collector.record import Usage
from retort.imports import FORMATS, Foreign, Unusable, Value, format_of, opened, values
from retort.imports.foreign import consent_of, number_of, seconds_of

LOGS = Path(__file__).parent / "foreign_logs"
UUID = "421880b7-563e-4910-a510-59b4a15fd5d0"
SYSTEM = {"role": "system", "content": "You answer questions about orders."}


def records(file: str) -> list[Value]:
    with opened(str(LOGS / file)) as source:
        return list(values(source))


def exchanges(file: str, name: str) -> list[list[Foreign] | str]:
    """Of each record its exchanges, or why it has none."""
    found: list[list[Foreign] | str] = []
    for record in records(file):
        try:
            found.append([] if record.wrong else FORMATS[name].read(record.data))
        except Unusable as error:
            found.append(str(error))
    return found


def one(file: str, name: str, number: int) -> Foreign:
    found = exchanges(file, name)[number - 1]
    assert isinstance(found, list)
    (only,) = found
    return only


def reasons(file: str, name: str) -> list[str]:
    return [found for found in exchanges(file, name) if isinstance(found, str)]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("fine_tuning.jsonl", "openai"),
        ("stored.json", "stored"),
        ("litellm.jsonl", "litellm"),
        ("litellm_spend.json", "litellm"),
        ("langfuse.json", "langfuse"),
        ("langfuse_blob.jsonl", "langfuse"),
        ("langfuse.csv", "langfuse"),
    ],
)
def test_a_format_is_told_by_its_records(file: str, name: str) -> None:
    assert {format_of(record.data) for record in records(file) if record.data} - {None} == {name}


def test_every_weighty_answer_of_a_fine_tuning_record_is_an_exchange_of_its_own() -> None:
    found = exchanges("fine_tuning.jsonl", "openai")
    second = found[1]
    assert isinstance(second, list)
    assert [one.answer["content"] for one in second] == ["Yes, within 30 days.", "That one too."]
    assert [len(one.messages) for one in second] == [4, 6]
    assert second[0].messages[2] == {"role": "assistant", "content": "Which one?"}
    assert "weight" not in json.dumps([[one.messages, one.answer] for one in second])
    assert reasons("fine_tuning.jsonl", "openai") == ["no_answer", "weight_0", "no_messages"]


def test_tools_calls_their_results_and_content_parts_stay_as_they_are() -> None:
    third = exchanges("fine_tuning.jsonl", "openai")[2]
    assert isinstance(third, list)
    called, told = third
    call = {"name": "find_order", "arguments": '{"number": "A-17"}'}
    assert called.answer["tool_calls"] == [{"id": "call_7", "type": "function", "function": call}]
    assert told.messages[2:] == [
        called.answer,
        {"role": "tool", "tool_call_id": "call_7", "content": '{"status": "sent"}'},
    ]
    assert told.parameters["parallel_tool_calls"] is False
    assert told.parameters["tools"][0]["function"]["name"] == "find_order"
    assert one("fine_tuning.jsonl", "openai", 4).messages[1] == user([{"type": "text", "text": "What does it cost?"}])


def test_a_stored_completion_is_read_without_what_storing_added() -> None:
    first = one("stored.json", "stored", 1)
    assert first.messages == [SYSTEM, user("Where is the parcel of Annegret Wintergerst?")]
    assert first.answer == {"role": "assistant", "content": "It left the depot."}
    assert (first.id, first.models, first.at) == ("chatcmpl-AyPN1", ("gpt-4o-2024-08-06",), 1738960611.0)
    assert (first.session, first.parameters["user"], first.parameters["temperature"]) == ("s-9", "user-31", 0.2)
    assert (first.usage, first.system_fingerprint) == (Usage(prompt_tokens=13, completion_tokens=18), "fp_50cad350e4")
    second = one("stored.json", "stored", 2)
    assert second.messages == [user([{"type": "text", "text": "What colour is it?"}])]
    assert second.finish_reason == "length"
    third = one("stored.json", "stored", 3)
    assert third.messages == [user("May I?")], "the answer at the messages' end is no question"
    assert third.parameters["max_tokens"] == 5
    assert reasons("stored.json", "stored") == ["no_messages"]


def test_a_litellm_payload_and_a_row_of_its_spend_logs_say_the_same_things() -> None:
    first = one("litellm.jsonl", "litellm", 1)
    assert first.messages == [SYSTEM, user("Call me at +49 171 5536624, is it there?")]
    assert first.answer["content"] == "It is there."
    assert (first.models, first.at) == (("azure/prod-4o", "gpt-4o-2024-08-06"), 1747000001.25)
    assert (first.session, first.consent, first.finish_reason) == ("s-9", True, "stop")
    assert first.parameters == {"temperature": 0.1, "stream": False, "user": "maria.oldenburg@acme-labs.org"}
    assert first.usage == Usage(prompt_tokens=30, completion_tokens=10)
    second = one("litellm.jsonl", "litellm", 2)
    assert second.session == "", "an id that LiteLLM made up names no conversation"
    assert set(second.parameters) == {"tools", "stream"}
    assert one("litellm.jsonl", "litellm", 7).consent is False
    assert reasons("litellm.jsonl", "litellm") == ["failed", "other_call", "redacted"]
    row = one("litellm_spend.json", "litellm", 1)
    assert row.messages == [user("Is it in stock?")]
    assert (row.id, row.at, row.session) == ("chatcmpl-S1", 1747000001.25, "")
    assert row.parameters == {"max_tokens": 100, "user": "customer-4"}
    assert reasons("litellm_spend.json", "litellm") == ["redacted", "no_messages"]


@pytest.mark.parametrize(
    ("ids", "session"),
    [
        ({"session_id": "s", "trace_id": UUID}, "s"),
        ({"session_id": UUID, "trace_id": "another"}, UUID),
        ({"session_id": "", "trace_id": "s"}, "s"),
        ({"session_id": "s", "trace_id": "s"}, "s"),
        ({"session_id": UUID, "trace_id": UUID}, ""),
        ({"request_id": UUID, "session_id": UUID}, ""),
        ({"trace_id": UUID, "metadata": '{"requester_metadata": {"session_id": "s"}}'}, "s"),
        ({}, ""),
    ],
)
def test_litellms_session_is_what_the_client_named_and_no_id_that_was_made_for_it(
    ids: dict[str, Any], session: str
) -> None:
    response = {"choices": [{"message": {"content": "x"}}]}
    (found,) = FORMATS["litellm"].read({"messages": [user("x")], "response": response, **ids})
    assert found.session == session


def test_a_langfuse_export_is_read_in_each_of_its_forms() -> None:
    first = one("langfuse.json", "langfuse", 1)
    assert first.messages == [SYSTEM, user("Please send it to maria.oldenburg@acme-labs.org.")]
    assert first.answer == {"role": "assistant", "content": "It is on its way."}
    assert (first.id, first.models, first.at) == ("obs_01J9A", ("gpt-4o",), 1744453394.512)
    assert (first.session, first.parameters["user"]) == ("s-9", "user-31")
    assert first.usage == Usage(prompt_tokens=412, completion_tokens=87)
    third = one("langfuse.json", "langfuse", 3)
    assert third.messages == [user("Which order?")]
    assert third.answer["tool_calls"][0]["id"] == "call_7"
    assert third.parameters["tools"][0]["function"]["name"] == "find_order"
    fourth = one("langfuse.json", "langfuse", 4)
    assert (fourth.messages, fourth.answer["content"]) == ([user("What is its colour, as JSON?")], '{"colour": "red"}')
    assert reasons("langfuse.json", "langfuse") == ["not_a_generation", "failed", "no_answer"]
    blob = one("langfuse_blob.jsonl", "langfuse", 1)
    assert blob.messages == [SYSTEM, user("Is Annegret Wintergerst in?")]
    assert blob.answer == {"role": "assistant", "content": "She is."}
    assert (blob.models, blob.at, blob.session) == (("gpt-4o",), 1716990371.963, "s-9")
    assert blob.parameters == {"temperature": 0.7, "max_tokens": 5, "user": "user-31"}
    assert one("langfuse_blob.jsonl", "langfuse", 2).answer["content"] == '{ "colour":  "red" }', "as it was said"
    tools = one("langfuse_blob.jsonl", "langfuse", 3).parameters["tools"]
    assert tools == [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]
    assert reasons("langfuse_blob.jsonl", "langfuse") == ["not_a_generation"]
    row = one("langfuse.csv", "langfuse", 1)
    assert row.messages == [user('Two\nlines, "quoted"?')]
    assert (row.usage, row.id) == (Usage(prompt_tokens=20, completion_tokens=4), "blob5")
    assert reasons("langfuse.csv", "langfuse") == ["no_answer"]


ODD: list[dict[str, Any]] = [
    {"messages": [{"content": "no role"}], "choices": [{"message": {}}], "input": [1], "output": "x", "response": 1},
    {"messages": "a text", "choices": [7], "input": {}, "output": [], "response": {"choices": []}},
    {"messages": {"data": {}}, "choices": {}, "input": 3, "output": {"choices": 1}, "response": "[1]"},
    {"messages": [[]], "choices": [{"message": None}], "input": "", "output": "x", "metadata": "{", "response": None},
    {"messages": [user("x"), {"role": 7}], "choices": [], "request": 1, "input": None, "output": 0},
    {},
]


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("record", ODD)
def test_an_odd_record_is_unusable_and_nothing_worse(name: str, record: dict[str, Any]) -> None:
    with pytest.raises(Unusable, match=r"^[a-z_0-9]+$"):
        FORMATS[name].read(record)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1747000001.25, 1747000001.25),
        (1747000001250, 1747000001.25),
        ("1747000001.25", 1747000001.25),
        ("2025-05-11T21:46:41.250Z", 1747000001.25),
        ("2025-05-11T23:46:41.250+02:00", 1747000001.25),
        ("2025-05-11 21:46:41.250000", 1747000001.25),
        ("yesterday", None),
        (None, None),
        (True, None),
        (-5, None),
        (float("nan"), None),
        ("9999999-01-01", None),
    ],
)
def test_times_are_read_in_every_form_that_the_logs_have(value: Any, seconds: float | None) -> None:
    assert seconds_of(value) == seconds


def test_numbers_and_consent_are_taken_from_what_says_them_plainly() -> None:
    assert [number_of(v) for v in ("7", 7, "inf", "x", [7], True, "1" * 400)] == [
        7.0,
        7.0,
        None,
        None,
        None,
        None,
        None,
    ]
    assert consent_of(None, {"consent": "No "}) is False
    assert consent_of({"consent": True}) is True
    assert consent_of({"x-retort-consent": "yes", "consent": "no"}) is True
    assert consent_of({"consent": "form 12"}, {}) is None
