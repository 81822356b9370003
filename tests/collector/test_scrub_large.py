"""What is long takes as long as it is, and what can't be looked into isn't kept."""

import base64
import random

import pytest
from real_scrubber import clean

from collector.errors import ScrubError
from collector.one_to_one import OneToOne
from collector.scrub import Scrubber
from collector.spacy_names import PIECE, pieces
from collector.surrogates import Surrogates

BINARY = base64.b64encode(random.Random(1).randbytes(3000)).decode()


class Counted(dict[str, tuple[str, str]]):
    """Counts what is looked up, and can't be gone through."""

    asked = 0

    def get(self, *key: object) -> object:  # type: ignore[override]
        self.asked += 1
        return super().get(*key)  # type: ignore[call-overload]

    def __iter__(self) -> object:  # type: ignore[override]
        raise AssertionError("every surrogate was gone through")

    items = keys = values = __iter__  # type: ignore[assignment]


def test_a_new_surrogate_is_not_compared_with_each_other_one() -> None:
    surrogates = OneToOne(Surrogates(b"k" * 32), ["a text"])
    surrogates._wholes = counted = Counted()
    made = {surrogates.of("EMAIL", f"somebody{n}@x.org") for n in range(500)}
    assert len(made) == 500
    assert len(counted) == 500
    assert counted.asked < 500 * 100


def test_a_surrogate_of_several_words_stands_in_no_text() -> None:
    street = OneToOne(Surrogates(b"k" * 32), []).of("STREET", "Hauptstrasse 7")
    assert " " in street
    assert OneToOne(Surrogates(b"k" * 32), [f"so: {street.upper()}."]).of("STREET", "Hauptstrasse 7") != street
    assert OneToOne(Surrogates(b"k" * 32), [street.replace(" ", " x ")]).of("STREET", "Hauptstrasse 7") == street


def test_spacy_reads_a_long_text_in_pieces_that_end_with_a_line_or_a_word() -> None:
    for text in ("", "a b", "one two\n" * 3000, "one " * 9000, "x" * 3 * PIECE):
        cut = list(pieces(text))
        assert "".join(text[a:b] for a, b in cut) == text
        assert all(b - a <= PIECE for a, b in cut)
        assert all(text[b - 1].isspace() for _, b in cut[:-1]) or " " not in text


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ({"url": f"data:image/png;base64,{BINARY}"}, {"url": "data:image/png;base64,"}),
        (f"see ![x](data:image/png;base64,{BINARY}) here", "see ![x](data:image/png;base64,) here"),
        ({"data": BINARY, "format": "wav"}, {"data": "", "format": "wav"}),
        ({"file_data": "data:application/pdf;base64," + BINARY * 60}, {"file_data": "data:application/pdf;base64,"}),
    ],
)
def test_of_an_image_a_sound_or_a_file_its_type_is_kept(scrubber: Scrubber, value: object, left: object) -> None:
    assert clean(scrubber, value) == left
    with pytest.raises(ScrubError, match="not_text"):
        scrubber.scrub([value], route="r", cluster="c", reversible=True)


def test_a_long_text_is_no_file(scrubber: Scrubber) -> None:
    for text in ("word " * 400, "A" * 1200 + ".", "see https://example.org/" + "a/" * 600):
        assert clean(scrubber, text) == text
