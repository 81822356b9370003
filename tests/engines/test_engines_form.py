"""Answers under a JSON Schema: a scripted model that would say something else, and the tiny real one, whose words are
noise."""

import json
from typing import Any

import jsonschema
import pytest
from engine_fakes import ScriptedRuntime, Served

from exporters.models import Confidence
from gateway.engines.errors import InvalidRequest
from gateway.engines.protocol import Done, Event, Generate, Options, Piece, Refused
from gateway.engines.schedule import Schedule
from router.enforceable import enforceable

COLOUR: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["colour", "n"],
    "additionalProperties": False,
}
RIGHT = b'{"colour": "red", "n": 7}'


def said(answer: bytes, schema: Any = COLOUR, *, asked: str = "q", **options: Any) -> tuple[str, str, str]:
    """The thinking, the text, and how it ended, of a model that would say `answer`."""
    told: list[Event] = []
    schedule = Schedule(ScriptedRuntime({asked: answer}), told.append, confidence=Confidence())
    decode = Options(schema=json.dumps(schema), temperature=0.0, **{"max_tokens": 900, **options})
    schedule.take(Generate(id=1, messages=[{"role": "user", "content": asked}], options=decode, at=0.0))
    while not schedule.idle:
        schedule.turn()
    last = told[-1]
    assert isinstance(last, Done | Refused)
    pieces = [e for e in told if isinstance(e, Piece)]
    end = last.finish_reason if isinstance(last, Done) else f"{last.code} {last.param}"
    return "".join(p.reasoning for p in pieces), "".join(p.text for p in pieces), end


@pytest.mark.parametrize(
    "answer", [RIGHT, b'{"n":1}', b"\n " + RIGHT, b"Sure: " + RIGHT, RIGHT + b" Anything else?", b""]
)
def test_whatever_the_model_would_say_its_answer_fits(answer: bytes) -> None:
    thought, text, _ = said(answer)
    jsonschema.validate(json.loads(text), COLOUR)
    assert thought == ""
    if answer.strip().startswith(RIGHT):
        assert json.loads(text) == json.loads(RIGHT)


def test_it_may_think_before() -> None:
    thought, text, end = said(b"<think>\nred, or {green}?\n</think>\n\n" + RIGHT)
    assert (thought, text, end) == ("red, or {green}?", RIGHT.decode(), "stop")
    thought, text, _ = said(b"<think>hm</think> Well! " + RIGHT)
    assert thought == "hm"
    jsonschema.validate(json.loads(text), COLOUR)


def test_what_began_like_thinking_and_was_none_is_an_error_and_no_answer() -> None:
    assert said(b"<thin ice>")[1:] == ("", "decode_failed None")


def test_an_answer_may_be_cut_off_and_stopped() -> None:
    assert said(RIGHT, max_tokens=5)[1:] == (RIGHT[:5].decode(), "length")
    assert said(RIGHT, stop=(", ",))[1:] == ('{"colour": "red"', "stop")


def test_answers_that_share_passes_keep_each_to_their_form() -> None:
    told: list[Event] = []
    schedule = Schedule(ScriptedRuntime({"a": RIGHT, "b": RIGHT[:-2] + b"x}"}), told.append, confidence=Confidence())
    decode = Options(schema=json.dumps(COLOUR), temperature=0.0, max_tokens=900)
    for number, name in enumerate("aaab"):
        schedule.take(Generate(id=number, messages=[{"role": "user", "content": name}], options=decode, at=0.0))
    while not schedule.idle:
        schedule.turn()
    texts = ["".join(e.text for e in told if isinstance(e, Piece) and e.id == number) for number in range(4)]
    assert texts[:3] == [RIGHT.decode()] * 3
    jsonschema.validate(json.loads(texts[3]), COLOUR)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "nope"}, "nope"),
        ({"not": {}}, "not"),
        ({"$ref": "#/nothing"}, "nothing"),
        ({"pattern": "(?=a)"}, "look"),
    ],
)
def test_a_schema_that_can_not_be_enforced_is_refused(schema: Any, why: str) -> None:
    assert said(RIGHT, schema)[1:] == ("", "invalid_request response_format")
    with pytest.raises(InvalidRequest, match=why):
        ScriptedRuntime({}).form(json.dumps(schema), opened=False)


def test_what_the_router_takes_for_enforceable_is_enforced_and_the_rest_stays_with_the_teacher() -> None:
    inner = {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]+$", "description": "d"}
    good = [
        COLOUR,
        {},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#/$defs/a", "$defs": {"a": COLOUR}},
        {"type": "array", "items": {"anyOf": [inner, {"type": "null"}]}, "minItems": 1, "maxItems": 3},
        {"type": "object", "properties": {"not": inner, "at": {"type": "string", "format": "date-time"}}},
        {"type": "array", "prefixItems": [{"const": 1}, {"type": ["integer", "null"]}], "items": False},
        {"allOf": [{"type": "object", "properties": {"a": {"exclusiveMinimum": 0, "type": "number"}}}]},
        *({"type": "string", "format": one} for one in ("time", "date", "duration", "email", "hostname", "ipv4")),
        *({"type": "string", "format": one} for one in ("ipv6", "uuid", "uri")),
    ]
    for schema in good:
        assert enforceable(schema), schema
        ScriptedRuntime({}).form(json.dumps(schema), opened=False)
    deep: dict[str, Any] = {"type": "array"}
    for _ in range(50):
        deep = {"type": "array", "items": deep}
    for other in (
        True, None, "x", deep, {"not": {}}, {"uniqueItems": True}, {"if": {}}, {"pattern": "(?=a)"}, {"format": "zzz"},
        {"pattern": r"\bx"}, {"properties": {"a": {"not": {}}}}, {"$ref": "https://elsewhere/x"},
        {"anyOf": [{"not": {}}]},
    ):  # fmt: skip
        assert not enforceable(other), other


def test_a_schema_that_is_nested_too_deep_is_refused() -> None:
    deep: dict[str, Any] = {"type": "array"}
    for _ in range(400):
        deep = {"type": "array", "items": deep}
    assert said(RIGHT, deep)[1:] == ("", "invalid_request response_format")


def test_an_answer_that_ends_within_its_thinking_is_an_error_and_no_answer() -> None:
    assert said(b"<think>\nhmm")[1:] == ("", "decode_failed None")


@pytest.mark.parametrize("temperature", [0.0, 1.3])
async def test_noise_of_a_real_model_comes_in_the_form(served: Served, temperature: float) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOUR, "strict": True}}
    for seed in range(3):
        body = {
            "messages": [{"role": "user", "content": f"which {seed}?"}], "temperature": temperature, "seed": seed,
            "max_tokens": 150, "response_format": asked, "logprobs": True,
        }  # fmt: skip
        response = await served.post(body)
        assert response.status == 200, await response.text()
        (choice,) = (await response.json())["choices"]
        if choice["finish_reason"] == "stop":
            jsonschema.validate(json.loads(choice["message"]["content"]), COLOUR)
        assert (
            b"".join(bytes(t["bytes"]) for t in choice["logprobs"]["content"]).decode() == choice["message"]["content"]
        )
        assert choice["message"]["content"].lstrip().startswith("{")


async def test_a_bad_schema_is_a_400_that_names_it(served: Served) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "not": {}}}}
    response = await served.post({"messages": [{"role": "user", "content": "hi"}], "response_format": form})
    assert response.status == 400
    error = (await response.json())["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "response_format")
    assert "not" in error["message"]
