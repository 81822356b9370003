"""Which texts share a pass, and whose turn it is."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exporters.models.encoder_card import EncoderCard
from exporters.models.encoder_session import QueryTooLong, Tokens
from gateway.engines import encode
from gateway.engines.encode import BUDGET, SPARE, EncoderSchedule
from gateway.engines.protocol import Cancel, Embed, Event, Rank, Refused, Scores, Vectors


class Scripted:
    """A character a token; a text's vector is its length and its first character. `passes`: the lengths in each."""

    def __init__(self, gives: str = "vector") -> None:
        self.card = EncoderCard(gives=gives, most_tokens=600, pad=0, dimensions=2)  # type: ignore[arg-type]
        self.passes: list[list[int]] = []

    def text(self, text: str) -> Tokens:
        return Tokens([ord(c) for c in text[:600]], [], len(text) <= 600)

    def pair(self, query: str, document: str) -> Tokens:
        if len(query) >= 600:
            raise QueryTooLong
        return self.text(query + document)

    def run(self, rows: list[Tokens]) -> Any:
        self.passes.append([len(row.ids) for row in rows])
        if any(row.ids[0] == ord("!") for row in rows):
            raise RuntimeError("the runtime broke")
        found = np.array([[len(row.ids), row.ids[0]] for row in rows], dtype=np.float32)
        found[found[:, 1] == ord("?")] = np.nan
        return found if self.card.gives == "vector" else found[:, 0]


def made(gives: str = "vector") -> SimpleNamespace:
    told: list[Event] = []
    session = Scripted(gives)
    return SimpleNamespace(session=session, told=told, turns=EncoderSchedule(session, told.append, clock=lambda: 5.0))  # type: ignore[arg-type]


def embed(number: int, texts: list[str], *, truncate: bool = False) -> Embed:
    return Embed(id=number, texts=texts, truncate=truncate, at=2.0)


def run(m: SimpleNamespace) -> None:
    while not m.turns.idle:
        m.turns.turn()


def test_vectors_come_in_the_texts_order_whatever_their_lengths() -> None:
    draw = random.Random(3)
    m = made()
    asked = {n: [draw.choice("abc") * draw.randint(1, 500) for _ in range(40)] for n in range(5)}
    for number, texts in asked.items():
        m.turns.take(embed(number, texts))
    run(m)
    for event in m.told:
        texts = asked.pop(event.id)
        found = np.frombuffer(event.vectors, "<f4").reshape(-1, 2).tolist()
        assert found == [[len(text), ord(text[0])] for text in texts]
        assert event.tokens == sum(map(len, texts))
        assert event.queue_seconds == 3.0
    assert not asked
    for batch in m.session.passes:
        assert max(batch) * len(batch) <= BUDGET
        assert min(batch) >= max(batch) - max(2 * SPARE, max(batch) // 4)
    assert len(m.session.passes) < 60  # of 200 texts


def test_requests_share_a_pass() -> None:
    m = made()
    for number in range(16):
        m.turns.take(embed(number, ["x" * (20 + number % 3)]))
    m.turns.turn()
    assert [len(batch) for batch in m.session.passes] == [16]
    assert m.turns.idle
    assert sorted(event.id for event in m.told) == list(range(16))
    assert {event.batch for event in m.told} == {16.0}
    m.turns.take(embed(16, ["x" * 20, "y" * 400]))
    m.turns.take(embed(17, ["x" * 20]))
    run(m)
    assert {event.id: event.batch for event in m.told[16:]} == {16: 1.5, 17: 2.0}, "of two passes, one was shared"


@pytest.mark.parametrize("before", [0, 1])
def test_two_large_requests_at_once_are_both_answered(before: int) -> None:
    """What is cut into tokens at a turn goes to the shorter one: the other may have nothing for the next pass."""
    m = made()
    for _ in range(before):
        m.turns.turn()
    m.turns.take(embed(0, ["x" * 1200] * 100, truncate=True))
    m.turns.take(embed(1, ["y" * 1000] * 100, truncate=True))
    run(m)
    assert sorted(event.id for event in m.told) == [0, 1]
    assert all(isinstance(event, Vectors) for event in m.told)


def test_a_short_request_waits_for_two_passes_at_most_and_a_long_one_for_every_second() -> None:
    m = made()
    m.turns.take(embed(0, ["x" * 400] * 100))
    m.turns.turn()
    m.turns.take(embed(1, ["y" * 9]))
    m.turns.turn()
    m.turns.turn()
    assert [event.id for event in m.told] == [1]
    for number in range(2, 1000):  # short ones without end
        if m.told[-1].id == 0:
            break
        m.turns.take(embed(number, ["y" * 9]))
        m.turns.turn()
    assert m.told[-1].id == 0


def test_a_long_request_becomes_tokens_bit_by_bit() -> None:
    m = made()
    m.turns.take(embed(0, ["x" * 500] * 2000))
    m.turns.turn()
    m.turns.take(embed(1, ["y"]))
    m.turns.turn()
    m.turns.turn()
    assert [event.id for event in m.told] == [1]


def test_a_cancelled_request_is_worked_on_no_more() -> None:
    m = made()
    m.turns.take(embed(0, ["x" * 400] * 100))
    m.turns.turn()
    m.turns.take(embed(1, ["y"]))
    m.turns.take(Cancel(0))
    run(m)
    assert [event.id for event in m.told] == [1]
    assert len(m.session.passes) == 2


def test_a_pass_that_fails_refuses_its_own_requests_alone() -> None:
    m = made()
    m.turns.take(embed(0, ["!bad"]))
    m.turns.take(embed(1, ["x" * 400]))
    m.turns.take(embed(2, ["?" * 100]))
    run(m)
    assert {(type(event), event.id) for event in m.told} == {(Refused, 0), (Vectors, 1), (Refused, 2)}
    assert all(event.code == "decode_failed" for event in m.told if isinstance(event, Refused))


@pytest.mark.parametrize(
    ("order", "param"),
    [
        (embed(7, ["a", "x" * 601]), "input[1]"),
        (Rank(id=7, query="q" * 600, documents=["d"], truncate=True, at=0.0), "query"),
        (Rank(id=7, query="q", documents=["d", "d" * 600], truncate=False, at=0.0), "documents[1]"),
    ],
)
def test_what_is_too_long_is_refused_by_name(order: Any, param: str) -> None:
    m = made("score" if isinstance(order, Rank) else "vector")
    m.turns.take(order)
    run(m)
    (event,) = m.told
    assert (event.id, event.code, event.param) == (7, "context_length_exceeded", param)
    assert m.session.passes == []


def test_scores_come_in_the_documents_order() -> None:
    m = made("score")
    m.turns.take(Rank(id=1, query="qq", documents=["a" * 700, "b", "", "cc"], truncate=True, at=0.0))
    run(m)
    (event,) = m.told
    assert isinstance(event, Scores)
    assert (event.scores, event.tokens) == ([600.0, 3.0, 2.0, 4.0], 609)


def test_too_much_that_waits_is_refused_but_never_a_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "MOST_TEXTS", 10)
    monkeypatch.setattr(encode, "MOST_CHARACTERS", 100)
    m = made()
    m.turns.take(embed(0, ["x"] * 11))
    m.turns.take(embed(1, ["y"]))
    run(m)
    m.turns.take(embed(2, ["x" * 90]))
    m.turns.take(embed(3, ["x" * 90]))
    run(m)
    assert [(event.id, getattr(event, "code", "")) for event in m.told] == [
        (1, "queue_full"), (0, ""), (3, "queue_full"), (2, ""),
    ]  # fmt: skip
