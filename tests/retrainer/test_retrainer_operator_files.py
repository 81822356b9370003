"""What an operator brings along, what clients report, and what a data set's manifest says of where it is from."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from data_route import Route
from retrainer_fakes import CountedLog, fill, interaction, teacher

from collector import SubjectKeys
from retrainer.data.held_out import read_corrections, read_held_out
from retrainer.data.labels import Labels, shift
from retrainer.data.told import told
from retrainer.errors import CycleError


@pytest.fixture
def route(log: CountedLog, keys: SubjectKeys) -> Route:
    return Route(log, keys)


def lines(file: Path, *values: Any) -> Path:
    file.write_text("".join(json.dumps(value) + "\n" for value in values))
    return file


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "user", "text": "hi"}], "a message has a role (system, user or assistant) and a content"),
        ([{"role": "tool", "content": "hi"}], "a message has a role"),
        ([], "the last message is the user's"),
        ([{"role": "assistant", "content": "hi"}], "the last message is the user's"),
    ],
)
def test_a_record_to_judge_by_that_is_none_is_told_with_its_line(tmp_path: Path, messages: Any, says: str) -> None:
    good = {"messages": [{"role": "user", "content": "hi"}], "answer": "yes"}
    file = lines(tmp_path / "exam.jsonl", good, {"messages": messages, "answer": "x"})
    with pytest.raises(CycleError) as found:
        read_held_out(file)
    assert f"held_out: {file} line 2: {says}" in str(found.value)
    assert 'a line is {"messages": [{"role": ..., "content": ...}], "answer": "..."}' in str(found.value)


def test_empty_lines_and_a_byte_order_mark_are_nothing(tmp_path: Path) -> None:
    file = tmp_path / "right.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"id": "a", "answer": "1"}\n\n   \n{"id": "b", "answer": "2"}\n\n')
    assert read_corrections(file) == {"a": "1", "b": "2"}


def test_corrections_that_name_nothing_are_told(route: Route, tmp_path: Path) -> None:
    fill(route.log, [interaction(n) for n in range(100)])
    file = lines(tmp_path / "right.jsonl", *({"id": name, "answer": "red"} for name in ("x1", "X2", "req-3")))
    made = route.made(policy={"corrections": str(file)})
    assert (made.manifest.corrected, made.manifest.corrections) == (1, {"found": 1, "given": 3})
    assert told(msgspec.to_builtins(made.manifest))["corrections"] == (
        "2 of 3 name no record of the route's that was read"
    )


def test_a_right_answer_that_is_not_what_the_request_asked_for_is_no_example(route: Route, tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["colour"], "properties": {"colour": {"type": "string"}}}
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    records = [interaction(n, request={**interaction(n).request, "response_format": shape}) for n in range(100)]
    fill(route.log, records)
    rights = [{"id": "x1", "answer": "red"}, {"id": "x2", "answer": "{}"}, {"id": "x3", "answer": '{"colour": "red"}'}]
    made = route.made(policy={"corrections": str(lines(tmp_path / "right.jsonl", *rights))})
    dropped = made.manifest.dropped
    assert (dropped["invalid_json"].count, dropped["schema"].count, made.manifest.corrected) == (1, 1, 1)
    everything = {e.id: e for e in (*made.train, *made.held_out)}
    assert everything["x3"].answer == '{"colour": "red"}'
    assert {"x1", "x2"}.isdisjoint(everything)


def test_safety_examples_that_did_not_join_are_told(route: Route, tmp_path: Path) -> None:
    fill(route.log, [interaction(n) for n in range(100)])
    asked = [{"messages": [{"role": "user", "content": f"How do I pick lock {n}?"}], "answer": "No."} for n in range(3)]
    file = str(lines(tmp_path / "safety.jsonl", *asked))
    few = route.made(policy={"safety": {"file": file, "share": 0.001}})
    assert told(msgspec.to_builtins(few.manifest))["safety examples"].startswith("0 beside ")
    measured = few.held_out[0].messages
    near = lines(tmp_path / "near.jsonl", {"messages": [measured[-1]], "answer": "No."}, *asked)
    made = route.made(policy={"safety": {"file": str(near), "share": 0.2}})
    assert made.manifest.dropped["near_measured"].count == 1
    assert made.manifest.added == {"safety": 3}


def test_the_newest_are_of_what_was_chosen(route: Route) -> None:
    fill(route.log, [interaction(n) for n in range(1500)])
    made = route.made(most=120)
    assert 0 < made.manifest.newest <= 0.4 * len(made.held_out)
    assert made.manifest.newest_from >= 1380


def test_only_those_whose_answers_are_in_the_set_are_its_teachers(route: Route) -> None:
    old = [msgspec.structs.replace(interaction(n), answers=[teacher(n, upstream="up/old")]) for n in range(200)]
    fill(route.log, [*old, *(interaction(n) for n in range(200, 400))])
    made = route.made(most=100, policy={"replay": 0.0})
    assert made.manifest.upstreams == {"up/m": 100}


def test_how_an_answer_was_asked_for_is_kept(route: Route) -> None:
    asked = {"temperature": 0.0, "max_tokens": 20, "seed": 7, "user": "u"}
    fill(route.log, [interaction(n, request={**interaction(n).request, **asked}) for n in range(100)])
    assert {json.dumps(e.sampling) for e in route.made().train} == {'{"temperature": 0.0, "max_tokens": 20}'}


def test_one_long_answer_hides_no_shift() -> None:
    production, made = Labels(), Labels()
    for n in range(1000):
        production.add(f"class {n % 53}")
        made.add(f"class {n % 5}")
    production.add("I am sorry, but I can't " * 20)
    found = shift(production, made)["answer"]
    assert found["missing"] == 48
    assert found["distance"] == pytest.approx(1 - 5 / 53, abs=2e-3)
    for n in range(200):
        production.add(f"a text of its own, {n} " * 20)
    assert shift(production, made) == {}, "open text"


def test_a_field_that_the_set_lacks_is_wholly_apart_and_a_rare_one_hardly() -> None:
    production, made = Labels(), Labels()
    for n in range(100):
        production.add("Sorry." if n == 0 else json.dumps({"kind": "ab"[n % 2], "urgent": n % 3 == 0}))
        made.add(json.dumps({"kind": "ab"[n % 2]}))
    found = shift(production, made)
    assert found["urgent"] == {"values": 2, "distance": 0.99, "missing": 2}
    assert found["answer"]["distance"] == pytest.approx(0.01)
    assert found["kind"]["distance"] < 0.02
