import msgspec
import pytest
import tiny_model
from retrainer_fakes import example, interaction, teacher

from collector.record import Answer, TokenLogprob
from retrainer.data.curate import Example, example_of
from router.decision import Arm
from router.scores import Asked


def test_the_teachers_answer_becomes_an_example() -> None:
    kept = example_of(interaction(1), 7)
    assert kept.example is not None
    assert kept.example.offset == 7
    assert kept.example.messages[-1]["role"] == "user"
    assert kept.reason is None


def test_an_example_knows_what_its_request_asked_for_and_says_nothing_of_it_otherwise() -> None:
    asking = {**interaction(1).request, "response_format": {"type": "json_object"}}
    kept = example_of(interaction(1, request=asking), 7)
    assert kept.example is not None
    assert kept.example.asked == Asked(json=True)
    assert msgspec.json.decode(msgspec.json.encode(kept.example), type=Example) == kept.example
    assert b"asked" not in msgspec.json.encode(example(1)), "older data sets keep their digests"


def test_a_students_answer_is_never_training_data() -> None:
    student = Answer(
        arm=Arm.STUDENT, version="v", status=200, finish_reason="stop", message={"role": "assistant", "content": "x"}
    )
    alone = example_of(interaction(1, arm=Arm.STUDENT, version="v", answers=(student,)), 1)
    assert (alone.example, alone.reason) == (None, "no_teacher_answer")
    audited = example_of(interaction(1, arm=Arm.STUDENT, version="v", answers=(student, teacher("right"))), 1)
    assert audited.example is not None
    assert audited.example.answer == "right"


@pytest.mark.parametrize(
    ("upstream", "source", "reason"),
    [
        ("up/m", "", None),
        ("up/m", "openai", None),
        ("up/older", "", "other_teacher"),
        ("up/older", "bootstrap", "other_teacher"),
        (None, "", "other_teacher"),
        (None, "litellm", None),
    ],
)
def test_only_the_routes_teachers_teach_and_who_imports_another_models_answers_has_said_so(
    upstream: str | None, source: str, reason: str | None
) -> None:
    record = interaction(1, answers=(teacher("right", upstream=upstream),), source=source)
    kept = example_of(record, 1, teachers=("up/m", "up/next"))
    assert kept.reason == reason
    assert (kept.example is None) == (reason is not None)
    corrected = example_of(record, 1, correction="blue", teachers=("up/m",)).example
    assert corrected is not None
    assert (corrected.answer, corrected.teacher) == ("blue", "")


def test_of_several_answers_the_first_of_a_teacher_is_learnt() -> None:
    both = (teacher("old", upstream="up/older"), teacher("right"))
    found = example_of(interaction(1, answers=both), 1, teachers=("up/m",)).example
    assert found is not None
    assert (found.answer, found.teacher) == ("right", "up/m")


def test_a_students_whole_answer_that_is_another_is_kept_beside_the_teachers() -> None:
    def rejected(text: str, **changes: object) -> str | None:
        student = teacher(text, arm=Arm.STUDENT, upstream=None, version="v", **changes)
        kept = example_of(interaction(1, answers=(teacher("right"), student)), 1)
        assert kept.example is not None
        assert kept.example.answer == "right"
        return kept.example.rejected

    assert rejected("wrong") == "wrong"
    assert rejected("right") is None
    assert rejected("wro", finish_reason="length") is None
    assert rejected("ask <PERSON_1>") is None
    assert b"rejected" not in msgspec.json.encode(example(1)), "older data sets keep their digests"


def test_what_the_teacher_told_of_its_tokens_is_kept_with_the_answer() -> None:
    told = (TokenLogprob("right", -0.1, {"left": -2.0}),)
    kept = example_of(interaction(1, answers=(teacher("right", logprobs=told),)), 1)
    assert kept.example is not None
    assert msgspec.json.decode(msgspec.json.encode(kept.example), type=Example).logprobs == told


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Dear <PERSON_3f2a>,", True),
        ("Dear <PERSON_1>,", True),
        ("Dear <PERSON>, <AGE>42</AGE>", True),
        ("<PERSON_1>Ann</PERSON_1>", True),
        ("<ANSWER>42</ANSWER>", False),
        ("<SQL>SELECT 1</SQL>", False),
        ("<TABLE><TR>x</TR></TABLE><BR>", False),
        ("<PERSON>Ann\n</PERSON> of <CITY>Ulm</CITY>", False),
    ],
)
def test_a_placeholder_is_of_the_scrubbers_own_kinds_and_no_tag_around_a_value(text: str, masked: bool) -> None:
    kept = example_of(interaction(1, answers=(teacher(text),)), 1)
    assert kept.reason == ("placeholder" if masked else None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answers": ()}, "no_teacher_answer"),
        ({"answers": (teacher("a", status=500),)}, "teacher_failed"),
        ({"answers": (teacher("a", error="cut"),)}, "teacher_failed"),
        ({"answers": (teacher("a", finish_reason="length"),)}, "unfinished"),
        ({"answers": (teacher("a", finish_reason=None),)}, "unfinished"),
        ({"answers": (teacher("  "),)}, "empty_answer"),
        ({"answers": (teacher("ask <PERSON_1>"),)}, "placeholder"),
        ({"answers": (teacher("a", message=None),)}, "not_text"),
        ({"answers": (teacher("a", message={"role": "assistant", "tool_calls": [{}], "content": "a"}),)}, "not_text"),
        ({"request": {"messages": []}}, "not_text"),
        ({"request": {"messages": [{"role": "user", "content": "hi"}], "tools": [{}]}}, "tools"),
        ({"request": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}}, "not_text"),
        ({"request": {"messages": [{"role": "assistant", "content": "hi"}]}}, "not_text"),
        ({"request": {"messages": [{"role": "tool", "content": "hi"}]}}, "tools"),
    ],
)
def test_what_can_not_teach_is_dropped_with_a_reason(changes: dict[str, object], reason: str) -> None:
    kept = example_of(interaction(1, **changes), 1)
    assert (kept.example, kept.reason) == (None, reason)


def test_text_parts_are_joined_and_developer_is_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = {"messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]}
    kept = example_of(interaction(1, request=request), 1)
    assert kept.example is not None
    assert kept.example.messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "ab"},
    ]


def test_thinking_is_cut_out_of_what_is_learnt_and_learnt_apart_where_it_is_kept() -> None:
    inline = interaction(1, answers=(teacher("<think>\nhm\n</think>\n\nred"),))
    apart = interaction(1, answers=(teacher("red", reasoning="hm"),))
    for record in (inline, apart):
        dropped, kept = example_of(record, 1).example, example_of(record, 1, keep_reasoning=True).example
        assert dropped is not None
        assert kept is not None
        assert (dropped.answer, dropped.reasoning, dropped.said) == ("red", "", "red")
        assert (kept.answer, kept.reasoning) == ("red", "hm")
        assert kept.said == "<think>\nhm\n</think>\n\nred"
    assert b"reasoning" not in msgspec.json.encode(dropped), "older data sets keep their digests"
    only = example_of(interaction(1, answers=(teacher("<think>on and on"),)), 1, keep_reasoning=True)
    assert only.reason == "empty_answer"
    masked = interaction(1, answers=(teacher("red", reasoning="I know <PERSON_1>"),))
    assert example_of(masked, 1).example is not None
    assert example_of(masked, 1, keep_reasoning=True).reason == "placeholder"
    corrected = example_of(apart, 1, correction="blue", keep_reasoning=True).example
    assert corrected is not None
    assert (corrected.answer, corrected.reasoning) == ("blue", "")


def test_a_lost_answer_comes_with_its_thinking_where_the_teachers_is_learnt() -> None:
    student = teacher("blue", arm=Arm.STUDENT, version="v", reasoning="hm")
    record = interaction(1, answers=(teacher("red", reasoning="it is"), student))
    for keep, said in ((False, "blue"), (True, "<think>\nhm\n</think>\n\nblue")):
        example = example_of(record, 1, keep_reasoning=keep).example
        assert example is not None
        assert example.rejected == said


TOOL = {"type": "function", "function": {"name": "paint", "parameters": {"type": "object", "required": ["colour"]}}}
CALL = {"id": "c", "type": "function", "function": {"name": "paint", "arguments": '{"colour":"red"}'}}
ASKING = {"messages": [{"role": "user", "content": "a car"}], "tools": [TOOL]}


def calling(*calls: dict[str, object], text: str | None = None) -> Answer:
    message = {"role": "assistant", "content": text, "tool_calls": list(calls)}
    return teacher("", finish_reason="tool_calls", message=message, logprobs=(TokenLogprob("x", -0.1, {}),))


def test_a_call_of_an_offered_tool_is_learnt_as_text_where_the_route_learns_tools() -> None:
    record = interaction(1, request=ASKING, answers=(calling(CALL, text="Now."),))
    found = example_of(record, 1, tools=True).example
    assert found is not None
    assert found.answer == 'Now.\n<tool_call>\n{"name": "paint", "arguments": {"colour": "red"}}\n</tool_call>'
    assert found.asked.tools == ("paint",)
    assert [m["role"] for m in found.messages] == ["system", "user"]
    assert '"paint"' in found.messages[0]["content"]
    assert found.logprobs == ()
    assert example_of(record, 1).reason == "tools"


def test_a_conversation_goes_on_after_the_result_of_a_call() -> None:
    messages = [
        *ASKING["messages"],
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ]
    found = example_of(interaction(1, request={**ASKING, "messages": messages}), 1, tools=True).example
    assert found is not None
    assert found.messages[-1] == {"role": "user", "content": "<tool_response>\ndone\n</tool_response>"}
    assert found.answer == tiny_model.answer(tiny_model.question(1))


@pytest.mark.parametrize(
    ("request_", "answer", "reason"),
    [
        ({**ASKING, "tool_choice": "required"}, calling(CALL), "not_text"),
        ({**ASKING, "tool_choice": "none"}, calling(CALL), "not_text"),
        ({**ASKING, "tools": [{"type": "web_search"}]}, teacher("red"), "not_text"),
        ({"messages": ASKING["messages"]}, calling(CALL), "not_text"),
        (ASKING, calling({**CALL, "function": {"name": "erase", "arguments": "{}"}}), "unknown_tool"),
        (ASKING, calling({**CALL, "function": {"name": "paint", "arguments": "{}"}}), "tool_arguments"),
        (ASKING, calling({**CALL, "function": {"name": "paint", "arguments": "red"}}), "tool_arguments"),
    ],
)
def test_what_no_student_could_be_asked_or_what_is_no_right_call_is_not_learnt(
    request_: dict[str, object], answer: Answer, reason: str
) -> None:
    assert example_of(interaction(1, request=request_, answers=(answer,)), 1, tools=True).reason == reason


def test_a_students_other_call_is_kept_beside_the_teachers() -> None:
    other = {**CALL, "function": {"name": "paint", "arguments": '{"colour": "blue"}'}}
    student = msgspec.structs.replace(calling(other), arm=Arm.STUDENT, version="v")
    found = example_of(interaction(1, request=ASKING, answers=(calling(CALL), student)), 1, tools=True).example
    assert found is not None
    assert found.rejected is not None
    assert "blue" in found.rejected
