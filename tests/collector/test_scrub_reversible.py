"""Surrogates that can be turned back: each stands for one thing, and none for a word of the text."""

import json
import re
from typing import Any

import pytest

from collector.english_words import has_a_word
from collector.errors import ScrubError
from collector.one_to_one import OneToOne
from collector.scrub import Scrubber
from collector.scrubbed import Scrubbed
from collector.stand_ins import StandIns
from collector.surrogates import Surrogates, _names
from router import CapturePolicy

KEY = b"k" * 32
TEXT = (
    "Hi, my name is Annegret Wintergerst, I live at Hauptstrasse 7, 10115 Berlin. Call +49 171 5536624, or mail "
    "zoe@acme.org; my card is 4539 1488 0343 6467."
)


def ask(scrubber: Scrubber, *values: Any, cluster: str = "c", **more: Any) -> Scrubbed:
    return scrubber.scrub(list(values), route="r", cluster=cluster, **more)


def test_no_name_is_an_english_word_and_enough_are_left() -> None:
    assert all(map(has_a_word, ("Grace", "May", "Long", "Park Lane", "Lake Summer")))
    assert not any(map(has_a_word, ("Brandi", "Gonzalez", "Stephentown")))
    for names in _names():
        assert len(names) > 250
        assert not any(map(has_a_word, names))


def test_each_surrogate_stands_for_one_thing_and_is_part_of_no_other() -> None:
    surrogates = OneToOne(Surrogates(KEY), [])
    texts = [
        f"{a}{b}" for a in "BCDFGHKLMN" for b in ("ola", "ert", "imo", "una", "ess", "ard", "olk", "iri", "amm", "ecki")
    ]
    things = [("PERSON", text) for text in texts] + [("EMAIL", f"{t}@x.org".lower()) for t in texts]
    things += [("CITY", text) for text in texts] + [("STREET", f"{text} Allee") for text in texts]
    made = [surrogates.of(*thing).casefold() for thing in things]
    assert len(set(made)) == len(things)
    for one in made:
        assert not [other for other in made if other != one and re.search(rf"\b{re.escape(one)}\b", other)]


def test_one_thing_keeps_its_surrogate_however_it_is_written() -> None:
    surrogates = OneToOne(Surrogates(KEY), [])
    made = surrogates.of("PERSON", "Annegret")
    assert surrogates.of("PERSON", "ANNEGRET") == made.upper()
    assert surrogates.of("PERSON", "annegret") == made.lower()
    assert surrogates.of("EMAIL", "A@x.org") == surrogates.of("EMAIL", "a@x.org")


def test_a_surrogate_never_stands_in_the_requests_own_text() -> None:
    own: list[str] = []
    drawn: list[str] = []
    for _ in range(20):
        made = OneToOne(Surrogates(KEY), {"messages": own}).of("PERSON", "Annegret")
        assert made not in drawn
        drawn.append(made)
        own.append(f"so said {made.upper()}.")
    assert OneToOne(Surrogates(KEY), [f"x{drawn[0]}"]).of("PERSON", "Annegret") == drawn[0]  # no word of its own


def test_what_is_masked_turns_back_and_capture_gives_the_same_surrogates(scrubber: Scrubber) -> None:
    request = {
        "messages": [{"content": TEXT}, {"content": json.dumps({"card": 4539148803436467, "tel": 491715536624})}]
    }
    masked = ask(scrubber, request, reversible=True)
    text = masked.values[0]["messages"][0]["content"]
    for original in masked.pairs.values():
        assert original not in text
    kept = ask(scrubber, request, [{"message": {"content": "Dear Annegret, bye"}}])
    assert kept.values[0]["messages"][0]["content"].replace(" 7,", "") != kept.values[0]
    words = [re.sub(r"\b\d\b", "#", value["messages"][0]["content"]) for value in (masked.values[0], kept.values[0])]
    assert words[0] == words[1]  # but for the house number
    for made, original in masked.pairs.items():
        text = text.replace(made, original)
    assert text == TEXT
    numbers = json.loads(masked.values[0]["messages"][1]["content"])
    assert [masked.pairs[str(number)] for number in numbers.values()] == ["4539148803436467", "491715536624"]


def test_a_number_so_short_that_it_could_be_any_stays_in_what_is_masked_alone() -> None:
    for reversible in (True, False):
        made = StandIns(
            OneToOne(Surrogates(b"k"), []), key=b"k", salt=b"s", policy=CapturePolicy(), reversible=reversible
        )
        assert made.replaces("BUILDING_NUMBER", "7b") is made.replaces("ZIP_CODE", "1011") is not reversible
        assert made.replaces("ZIP_CODE", "10115")
        assert made.replaces("STREET", "Hauptstrasse 7")


def test_what_a_route_hashes_or_drops_is_a_surrogate_where_it_must_turn_back() -> None:
    for action in ("placeholder", "hash", "drop"):
        policy = CapturePolicy(scrub={"default": action, "CITY": "keep"})
        made = StandIns(OneToOne(Surrogates(b"k"), []), key=b"k", salt=b"s", policy=policy, reversible=True)
        stands = made.of("EMAIL", "jane@acme.org")
        assert made.pairs == {stands: "jane@acme.org"}
        assert "@" in stands
        assert not made.dropped
        assert not made.replaces("CITY", "Berlin")


def test_a_text_that_names_too_many_alike_is_refused_where_it_must_turn_back(scrubber: Scrubber) -> None:
    logs = " and ".join(f"10.1.{n // 250}.{n % 250}" for n in range(300))
    assert "10.1." not in ask(scrubber, logs).values[0]
    with pytest.raises(ScrubError, match="too_many_alike"):
        ask(scrubber, logs, reversible=True)
