"""A route's settings: what stands in place of which kind, whose languages the models read, and what is told of it."""

import re
import time
from collections import Counter
from typing import Any

import msgspec
import pytest
from collector_fakes import PlainPool, answer, call, exchange, question, sealing
from real_scrubber import CARD, EMAIL, IBAN, PHONE, ROUTES, clean

from collector import ScrubError, Stream, cues, decode_interaction, forms, rampart
from collector.assemble import Assembler
from collector.plausible import Found, is_technical
from collector.scrub import Scrubber, version
from collector.scrubbed import Scrubbed
from router import Arm, CapturePolicy, Events, parse
from router.policy_scrub import ENTITIES

CONFIG = """
upstreams: {openai: {base_url: "http://x", distillation_allowed: true}}
engines: {local: {}}
routes: {support: {teachers: [openai/gpt-4o], student: {}, quality: {score: exact}, capture: {scrub: {CARD: drop}}}}
"""


def test_a_route_may_ask_for_placeholders_hashes_or_that_a_kind_stays(scrubber: Scrubber) -> None:
    text = f"I am Annegret Wintergerst from Hamburg, {EMAIL}, {CARD}"
    out = clean(scrubber, text, route="placeholders")
    assert re.fullmatch(r"I am <PERSON_[0-9a-f]{4}> from Hamburg, [0-9a-f]{16}, <CARD_[0-9a-f]{4}>", out), out
    assert clean(scrubber, f"{EMAIL} again {CARD}", route="placeholders") == " again ".join(out.rsplit(", ", 2)[1:])
    other = clean(scrubber, text, route="placeholders", cluster="another")
    assert other.rsplit(", ", 2)[1] == out.rsplit(", ", 2)[1]  # a hash is the same in every conversation
    assert other.rsplit(", ", 2)[2] != out.rsplit(", ", 2)[2]  # a placeholder is not
    number = clean(scrubber, {"card": 4111111111111111}, route="placeholders")["card"]
    assert isinstance(number, int)
    assert number != 4111111111111111


def test_a_route_may_drop_what_holds_a_kind_and_names_all_that_it_found(scrubber: Scrubber) -> None:
    assert "Wintergerst" not in clean(scrubber, "My name is Annegret Wintergerst", route="dropping")
    with pytest.raises(ScrubError, match=r"^dropped_by_policy: CARD, IBAN$"):
        clean(scrubber, {"a": CARD, "b": [f"to {IBAN}"]}, route="dropping")


def test_a_text_of_another_language_is_read_by_the_patterns_alone_and_counted(scrubber: Scrubber) -> None:
    german = f"Guten Tag, mein Name ist Annegret Wintergerst und das ist meine Adresse: {EMAIL}"
    polish = f"Dzień dobry, nazywam się Jan Kowalski i czekam na moją paczkę, ale jej nie ma: {EMAIL}"
    for text, route, unread in ((german, "r", 0), (german, "english", 1), (german, "r", 0), (polish, "r", 1)):
        out = scrubber.scrub([text], route=route, cluster="c")
        assert out.unread == unread
        assert EMAIL not in out.values[0]
        assert ("Wintergerst" in out.values[0] or "Kowalski" in out.values[0]) is bool(unread)
    assert (
        scrubber.scrub(["Jan Kowalski, Kraków"], route="r", cluster="c").unread == 0
    )  # nothing says that it is Polish


def test_what_an_answer_says_of_persons_beyond_its_request_is_told_by_kind(scrubber: Scrubber) -> None:
    request = {"messages": [{"content": f"Write to Wintergerst, Annegret ({EMAIL}), tel 14155552671"}]}
    echo = {"content": f"Dear Annegret Wintergerst, we write to {EMAIL.upper()} or call {PHONE}."}
    knows = {"content": f"Dear Annegret Wintergerst, your card is {CARD}. Kind regards, Maria Oldenburg"}
    out = scrubber.scrub([request, echo, knows, knows], route="r", cluster="c", compared={1, 2})
    assert out.memorised == {2: {"CARD": 1, "PERSON": 1}}


def test_dates_and_ages_stay_dates_and_ages(scrubber: Scrubber) -> None:
    out = clean(scrubber, "born on 12.03.1980, I'm 34 years old")
    found = re.fullmatch(r"born on (\d\d)\.(\d\d)\.(\d{4}), I'm (\d\d) years old", out)
    assert found, out
    day, month, year, age = map(int, found.groups())
    assert (1 <= day <= 12, 1 <= month <= 12, 1940 <= year <= 2005, 18 <= age < 90) == (True,) * 4
    assert (day, month, year) != (12, 3, 1980)


def test_an_identity_numbers_surrogate_fails_its_checksum(scrubber: Scrubber) -> None:
    for cluster in map(str, range(40)):
        assert not any(e == "ID_NUMBER" for e, _, _ in forms.find(clean(scrubber, "it is 12345678Z", cluster=cluster)))


def test_the_version_changes_with_a_routes_settings(scrubber: Scrubber) -> None:
    assert len({version(policy) for policy in (*ROUTES.values(), CapturePolicy(), CapturePolicy(rate=0.5))}) == 5


def test_every_kind_that_is_found_may_be_named_in_a_policy() -> None:
    assert {form.entity for form in forms.FORMS} | set(rampart.ENTITIES.values()) | {"PHONE"} == set(ENTITIES)


def test_the_patterns_beside_the_models_are_done_with_a_long_run_in_time() -> None:
    for run in ("Aa ", "a-", "A-", "1 ", "1-", "De ", "a:", "a@", "street: a", "mr. Aa ", "rue de ", "12 Aa Street "):
        text = run * (20_000 // len(run))
        began = time.process_time()
        cues.besides(text, [Found("CITY", 0, 2, 1.0)])
        assert isinstance(is_technical(text), bool)
        assert time.process_time() - began < 2.0, run


class Telling(PlainPool):
    """Says of every answer that it was to compare that it holds an e-mail of its own."""

    async def scrub(self, values: list[Any], *, compared: frozenset[int] = frozenset(), **more: Any) -> Scrubbed:
        out = await super().scrub(values, compared=compared, **more)
        return msgspec.structs.replace(out, unread=2, memorised={n: {"EMAIL": n} for n in compared})


async def test_students_alone_are_compared_and_told_with_their_version() -> None:
    events, heard = Events(), Counter[tuple[Any, ...]]()
    events.subscribe(lambda name, fields: heard.update([(name, *fields.values())]))
    assembler = Assembler(parse(CONFIG, {}), Telling(), events, sealing=sealing())
    asked, said, also = question(), answer("x"), answer("y")
    served, shadow = call(Arm.TEACHER, said), call(Arm.STUDENT, also, version="v7")
    header = exchange(request=asked, served=served, shadows=[shadow])
    made = assembler.begin(header, asked + said + also)
    records = [record for later in made.later for record in await later]
    told = [event for event in heard if event[0] in ("collector.memorised", "collector.language_unread")]
    assert told == [("collector.language_unread", "support", 2), ("collector.memorised", "support", "v7", "EMAIL", 2)]
    (interaction,) = [r for stream, r in records if stream is Stream.INTERACTIONS]
    policy = parse(CONFIG, {}).routes["support"].capture
    assert decode_interaction(interaction.value).scrubber == version(policy)
    assert version(policy) != version(CapturePolicy())
