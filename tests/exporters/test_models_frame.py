"""What a route's messages have in common."""

import pytest

from exporters.models.frame import Frame

WORDS = [
    "apple",
    "river",
    "stone",
    "cloud",
    "window",
    "garden",
    "engine",
    "silver",
    "forest",
    "market",
    "bridge",
    "candle",
]
INSTRUCTION = "Classify the message of our customer into one of the categories that follow. Message: "


def test_the_instruction_around_the_users_words_is_found_in_whole_words() -> None:
    texts = [f"{INSTRUCTION}{word} is broken\nAnswer with one word." for word in WORDS]
    frame = Frame.of(texts)
    assert frame.begins == INSTRUCTION
    assert frame.ends == " is broken\nAnswer with one word."
    assert [frame.inner(text) for text in texts] == WORDS
    assert Frame.of([f"{INSTRUCTION}st{word}" for word in WORDS]).begins == INSTRUCTION, "no beginning of a word"


def test_a_few_others_are_borne_and_stay_as_they_are() -> None:
    texts = [f"{INSTRUCTION}{first} {second}" for first in WORDS for second in WORDS]
    frame = Frame.of([*texts, *(f"hello {word}" for word in WORDS)])
    assert frame.begins == INSTRUCTION
    assert frame.inner("hello you") == "hello you"
    assert frame.inner(INSTRUCTION[:9]) == INSTRUCTION[:9]
    assert Frame.of([*texts[:60], *(f"hello {first} {second}" for first in WORDS for second in WORDS)]) == Frame()


def test_what_has_no_word_within_is_left_whole() -> None:
    flood = [f"please tell me where my order is: {number}" for number in range(100)]
    frame = Frame.of(flood)
    assert frame.begins == "please tell me where my order is: "
    assert frame.inner(flood[7]) == flood[7]
    assert Frame.of(["all the same, always"] * 9).inner("all the same, always") == "all the same, always"


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["the same instruction: a", "the same instruction: b"],
        ["one alone that has nothing to share"],
        [f"short {word}" for word in WORDS],
    ],
)
def test_there_may_be_none(texts: list[str]) -> None:
    assert Frame.of(texts) == Frame()


def test_words_of_other_scripts_are_whole_too_and_those_without_spaces_have_none() -> None:
    russian = [f"Определите тему этого обращения: про{rest} дома" for rest in ("дажа", "верка", "водка", "ект") * 3]
    assert Frame.of(russian).begins == "Определите тему этого обращения: "
    chinese = [f"请判断下面这段客户留言属于哪一个部门并回答部门名称留言是{word}" for word in WORDS]
    assert Frame.of(chinese).begins == "请判断下面这段客户留言属于哪一个部门并回答部门名称留言是"


def test_beginning_and_end_do_not_share_characters() -> None:
    frame = Frame("ask: the long one ", " the long one, ask")
    assert frame.inner("ask: the long one, ask") == "ask: the long one, ask"
