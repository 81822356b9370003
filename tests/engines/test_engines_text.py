"""Characters and stop strings."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.engines.text import Characters, Stops


@given(st.text(), st.lists(st.integers(1, 5)))
def test_characters_come_whole_however_their_bytes_are_cut(text: str, cuts: list[int]) -> None:
    characters, data, out = Characters(), text.encode("utf-8", "surrogatepass"), ""
    for size in [*cuts, len(data)]:
        out += characters.feed(data[:size])
        data = data[size:]
    out += characters.feed(data) + characters.end()
    assert out == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def test_an_unfinished_character_waits_and_becomes_a_replacement_at_the_end() -> None:
    characters = Characters()
    assert characters.feed("é".encode()[:1]) == ""
    assert characters.end() == "\ufffd"


_LETTERS = st.text("abc", max_size=30)


@given(_LETTERS, st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3), st.lists(st.integers(1, 4)))
def test_the_shown_text_ends_before_the_first_stop_string_however_it_is_cut(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    expected = text[: min(ends)[1]] if ends else text
    matcher, out, rest = Stops(stops), "", text
    for size in [*cuts, len(text)]:
        shown = matcher.feed(rest[:size])
        out += shown
        rest = rest[size:]
        assert expected.startswith(out)  # nothing of a stop string ever leaks
        if matcher.matched:
            break
    else:
        out += matcher.feed(rest)
    if not matcher.matched:
        out += matcher.end()
    assert out == expected
    assert matcher.matched == bool(ends)
