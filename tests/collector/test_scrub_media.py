"""Of what base64 holds nothing is kept but its type, however it is written; texts that look like it stay."""

import base64
import random
import textwrap
from typing import Any

import pytest
from real_scrubber import clean

from collector.errors import ScrubError
from collector.kept import without_media
from collector.scrub import Scrubber

BYTES = random.Random(1).randbytes(1500)
BASE64 = base64.b64encode(BYTES).decode()
LINES = textwrap.wrap(BASE64, 76)
SHORT = BASE64[:400]


@pytest.mark.parametrize(
    "text",
    [
        BASE64, base64.urlsafe_b64encode(BYTES).decode(), "\n".join(LINES), " ".join(LINES), "\\n".join(LINES),
        BASE64.replace("/", "\\/"), "A" * 2000 + BASE64,
    ],
)  # fmt: skip
def test_a_string_that_is_base64_as_a_whole_is_emptied(scrubber: Scrubber, text: str) -> None:
    assert clean(scrubber, text) == ""


@pytest.mark.parametrize("start", ["data:;base64,", "DATA:image/png;BASE64,", "data:audio/wav;rate=8000;base64,"])
def test_of_a_link_its_type_stays(scrubber: Scrubber, start: str) -> None:
    assert clean(scrubber, f"see {start}{SHORT}") == f"see {start}"
    assert clean(scrubber, f"({start}{SHORT}), or so") == f"({start}), or so"
    escaped = start.replace("/", "\\/")
    assert clean(scrubber, f"({escaped}{SHORT.replace('/', chr(92) + '/')}), or so") == f"({escaped}), or so"


@pytest.mark.parametrize(
    "value",
    [
        {"type": "input_audio", "input_audio": {"data": SHORT, "format": "wav"}},
        {"type": "file", "file": {"file_data": SHORT, "filename": "a.pdf"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": SHORT}},
        {"inlineData": {"mimeType": "image/png", "data": SHORT}},
        {"audio": {"id": "a1", "data": SHORT, "transcript": "hello"}},
        {"data": [{"b64_json": SHORT}]},
    ],
)
def test_by_its_key_short_base64_is_emptied_too_and_a_masked_teacher_is_not_sent_it(
    scrubber: Scrubber, value: dict[str, Any]
) -> None:
    out = clean(scrubber, value)
    assert SHORT[:40] not in str(out)
    assert out.keys() == value.keys()
    with pytest.raises(ScrubError, match="not_text"):
        clean(scrubber, value, reversible=True)


def test_the_type_of_a_files_link_is_kept(scrubber: Scrubber) -> None:
    assert clean(scrubber, {"file_data": f"data:text/csv;base64,{SHORT}"}) == {"file_data": "data:text/csv;base64,"}


@pytest.mark.parametrize(
    "value",
    [
        "version 2 of the words " * 60, "\n".join(f"column{n}" for n in range(200)), "-" * 1200 + "\na1",
        {"data": "some text", "format": "csv"}, {"data": ["a", "b"], "type": "base64"}, "data: base64, or so",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_stays(scrubber: Scrubber, value: Any) -> None:
    assert clean(scrubber, value) == value


def test_long_texts_that_look_like_it_are_looked_through() -> None:
    for text in ("a1" * 600 + " " * 150_000 + "!", "data:" + "a/" * 90_000, "data:image/png" + ";a=b" * 40_000):
        assert without_media(text) == text
