"""More of a conversation, scrubbed later beside its record: the same person has the same surrogate, and nobody else."""

from typing import Any

import pytest

from collector.errors import ScrubError
from collector.one_to_one import OneToOne
from collector.scrub import Scrubber
from collector.scrubbed import Beside, Scrubbed
from collector.surrogates import Surrogates, _names

KEY = b"k" * 32
ASKED = {"messages": [{"role": "user", "content": "I am Annegret Wintergerst, zoe@acme.org. Who handles my order?"}]}
SAID = {"role": "assistant", "content": "Theodora Kellerwald does, call +49 171 5536624."}


def record(scrubber: Scrubber, *values: Any, route: str = "r") -> Scrubbed:
    return scrubber.scrub(list(values), route=route, cluster="c")


def beside(scrubber: Scrubber, before: Scrubbed, text: str, *, route: str = "r", known: bool = True) -> str:
    at = Beside(tuple(before.values), before.drawn if known else None)
    return str(scrubber.scrub([{"content": text}], route=route, cluster="c", beside=at).values[0]["content"])


def test_a_right_answer_has_the_surrogates_of_its_record(scrubber: Scrubber) -> None:
    made = record(scrubber, ASKED, SAID)
    asked, said = made.values[0]["messages"][0]["content"], made.values[1]["content"]
    first, last = asked.removeprefix("I am ").split(",")[0].split()
    email = asked.split(", ")[1].split(". ")[0]
    theodora, phone = said.split(" ")[0], said.split("call ")[1][:-1]
    right = "Theodora Kellerwald does, call +49 171 5536624, dear Annegret Wintergerst (zoe@acme.org)."
    clean = beside(scrubber, made, right)
    assert clean.startswith(f"{theodora} ")
    assert clean.endswith(f" does, call {phone}, dear {first} {last} ({email}).")
    assert not any(name in clean for name in ("Annegret", "Wintergerst", "Theodora", "Kellerwald", "zoe@", "5536624"))
    assert beside(scrubber, made, right, known=False) == clean, "here no draw had to be repeated"


def test_also_where_the_request_held_the_first_draw_by_chance(scrubber: Scrubber) -> None:
    first = record(scrubber, ASKED).values[0]["messages"][0]["content"].split()[2]
    crowded = {"messages": [*ASKED["messages"], {"role": "user", "content": f"and {first.upper()} is a word"}]}
    made = record(scrubber, crowded)
    other = made.values[0]["messages"][0]["content"].split()[2]
    assert other != first
    assert beside(scrubber, made, "Dear Annegret Wintergerst, yes.").split()[1] == other


def test_placeholders_are_those_of_the_record_and_what_is_dropped_is_dropped(scrubber: Scrubber) -> None:
    made = record(scrubber, ASKED, route="placeholders")
    shown = made.values[0]["messages"][0]["content"].removeprefix("I am ").split(",")[0]
    assert shown.startswith("<PERSON_")
    assert beside(scrubber, made, "Dear Annegret Wintergerst, yes.", route="placeholders") == f"Dear {shown}, yes."
    with pytest.raises(ScrubError, match="dropped_by_policy: CARD"):
        beside(scrubber, record(scrubber, ASKED, route="dropping"), "It is 4111 1111 1111 1111.", route="dropping")


def test_whoever_is_new_has_nobodys_surrogate_and_whoever_was_there_keeps_his() -> None:
    firsts, lasts, _, _ = _names()
    people = [f"N{a}{b}" for a in "abcdefghij" for b in ("ola", "ert", "imo", "una", "ess", "ard", "olk", "iri")]
    before = OneToOne(Surrogates(KEY), [])
    made = {name: before.of("PERSON", name) for name in people[:60]}
    assert any(before.drawn.values()), "some first draws were another's"
    own = [" ".join(made.values())]
    later = OneToOne(Surrogates(KEY), own, before.drawn)
    again = {name: later.of("PERSON", name) for name in reversed(people)}
    assert {name: again[name] for name in made} == made
    assert len(set(again.values())) == len(people)
    assert set(again.values()) <= {*firsts, *lasts}
