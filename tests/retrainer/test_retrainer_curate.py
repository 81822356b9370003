import msgspec
import pytest
from retrainer_fakes import example, interaction, teacher

from collector.record import Answer, TokenLogprob
from retrainer.data.curate import Example, Side, example_of, group, newest_of_each, side
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
        ({"request": {"messages": [{"role": "user", "content": "hi"}], "tools": [{}]}}, "not_text"),
        ({"request": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}}, "not_text"),
        ({"request": {"messages": [{"role": "assistant", "content": "hi"}]}}, "not_text"),
        ({"request": {"messages": [{"role": "tool", "content": "hi"}]}}, "not_text"),
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


def test_of_equal_prompts_the_newest_answer_stays_in_the_first_ones_conversation() -> None:
    old, new = example(1, answer="old"), msgspec.structs.replace(example(1, answer="new", cluster="other"), id="later")
    kept, dropped = newest_of_each([old, example(2), new])
    assert kept[0].answer == "new"
    assert kept[0].cluster == old.cluster
    assert [e.id for e in dropped] == [old.id]


def test_near_duplicates_and_conversations_share_a_group() -> None:
    text = "how do I configure the printer in the big office on the third floor of building nine"
    near = [example(1, text=text), example(2, text=text + "?"), example(3, text=text.upper())]
    same = [example(4, cluster="talk"), example(5, cluster="talk")]
    kept, torn = group([*near, *same, example(6)])
    groups = [e.group for e in kept]
    assert len(set(groups[:3])) == 1
    assert len(set(groups[3:5])) == 1
    assert len(set(groups)) == 3
    assert torn == []


def test_a_shared_system_prompt_alone_makes_no_group() -> None:
    kept, _ = group([example(1, text="what is rust"), example(2, text="bake me a cake")])
    assert kept[0].group != kept[1].group


def test_a_record_never_changes_side_when_the_log_grows() -> None:
    records = [example(n) for n in range(120)]
    early, _ = group(records[:60])
    late, _ = group(records)
    sides = {e.id: side(e.group) for e in late}
    assert early
    assert all(sides[e.id] is side(e.group) for e in early)


def test_a_record_that_joins_two_sides_is_left_out() -> None:
    """Two conversations on different sides, then one record near to a record of each."""
    first, second = example(1, text="alpha beta gamma delta epsilon"), None
    for number in range(2, 200):
        candidate = example(number, text=f"unrelated text number {number} about boats")
        kept, _ = group([first, candidate])
        if side(kept[0].group) is not side(kept[1].group):
            second = candidate
            break
    assert second is not None
    bridge = example(999, text="alpha beta gamma delta epsilon", cluster=second.cluster)
    kept, torn = group([first, second, bridge])
    assert [e.id for e in torn] == [bridge.id]
    assert len(kept) == 2


def test_the_split_is_near_eighty_ten_ten() -> None:
    sides = [side(f"g{n}") for n in range(5000)]
    assert 0.78 < sides.count(Side.TRAIN) / 5000 < 0.82
    assert 0.085 < sides.count(Side.VALIDATION) / 5000 < 0.115
    assert 0.085 < sides.count(Side.TEST) / 5000 < 0.115
