import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.thinking import CLOSE, OPEN, Thinking, opens, split, written

PIECES = st.lists(
    st.sampled_from([OPEN, CLOSE, "<", "<think", "think>", "</", " ", "\n", "because", "42", "{}"]), max_size=12
)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>\nSix times\nseven.\n</think>\n\n42", "Six times\nseven.", "42"),
        ("\n<think>hm</think>42", "hm", "42"),
        ("<think>\n\n</think>\n\n42", "", "42"),
        ("<think>on and on", "on and on", ""),
        ("<think>on <b>and</b> on </thin", "on <b>and</b> on </thin", ""),
        (" 42 ", "", " 42 "),
        ("the tag <think> opens, </think> closes", "", "the tag <think> opens, </think> closes"),
        ("<thi", "", "<thi"),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("", "", ""),
    ],
)
def test_thinking_before_an_answer_is_told_apart(text: str, thought: str, answer: str) -> None:
    assert split(text) == (thought, answer)


def test_a_template_may_have_opened_the_thinking() -> None:
    assert opens("<|user|>hi<|assistant|><think>\n")
    assert not opens("<|user|><think> is a tag<|assistant|>")
    assert split("hm\n</think>\n\n42", opened=True) == ("hm", "42")
    assert split("hm", opened=True) == ("hm", "")


@given(pieces=PIECES, opened=st.booleans())
def test_however_a_text_is_cut_it_comes_apart_in_the_same_way(pieces: list[str], opened: bool) -> None:
    text = "".join(pieces)
    thinking = Thinking(opened=opened)
    found = [thinking.feed(piece) for piece in pieces]
    assert thinking.fed == len(text)
    found.append(thinking.end())
    whole = ("".join(thought for thought, _ in found), "".join(answer for _, answer in found))
    assert whole == split(text, opened=opened)
    if thinking.begins is not None:
        assert text[thinking.begins :] == whole[1]


@given(thought=st.text("ab <>/\n"), answer=st.text("ab <>\n", min_size=1))
def test_what_is_written_is_split_again(thought: str, answer: str) -> None:
    thought, answer = thought.strip(), answer.lstrip()
    if CLOSE not in thought and not answer.startswith(OPEN):
        assert split(written(thought, answer)) == (thought, answer)
