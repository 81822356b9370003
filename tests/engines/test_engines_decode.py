"""Decoding with a scripted model: drafts, caches, stop strings, turns."""

import pytest
from engine_fakes import ScriptedRuntime

from gateway.engines.protocol import Cancel, Done, Event, Generate, Options, Piece, Refused, Started
from gateway.engines.schedule import SLICE, SLOTS, Schedule

SYSTEM = {"role": "system", "content": "classify " * 20}


class Bench:
    """A schedule over a scripted model, and what it sent."""

    def __init__(self, answers: dict[str, bytes], **runtime: object) -> None:
        self.runtime = ScriptedRuntime(answers, **runtime)  # type: ignore[arg-type]
        self.sent: list[Event] = []
        self.schedule = Schedule(self.runtime, self.sent.append, clock=lambda: 5.0)
        self.count = 0

    def ask(self, text: str, **options: object) -> int:
        self.count += 1
        messages = [SYSTEM, {"role": "user", "content": text}]
        greedy = {"temperature": 0.0, **options}
        self.schedule.take(Generate(id=self.count, messages=messages, options=Options(**greedy), at=3.0))  # type: ignore[arg-type]
        return self.count

    def run(self) -> None:
        while not self.schedule.idle:
            self.schedule.turn()

    def answer(self, text: str, **options: object) -> tuple[str, Done]:
        number = self.ask(text, **options)
        self.run()
        return self.text(number), self.done(number)

    def text(self, number: int) -> str:
        return "".join(e.text for e in self.sent if isinstance(e, Piece) and e.id == number)

    def done(self, number: int) -> Done:
        return next(e for e in self.sent if isinstance(e, Done) and e.id == number)


def test_an_answer_is_complete_and_its_tokens_are_counted() -> None:
    bench = Bench({"a": b'{"x": 1}'})
    text, done = bench.answer("a")
    assert text == '{"x": 1}'
    assert (done.finish_reason, done.completion_tokens) == ("stop", 9)  # the end token is one
    assert done.confidence == pytest.approx(1.0, abs=1e-4)
    started = next(e for e in bench.sent if isinstance(e, Started))
    assert started.prompt_tokens == len(f"<system>{SYSTEM['content']}<user>a") + 1
    assert started.queue_seconds == 2.0


def test_drafts_save_passes_and_never_change_an_answer() -> None:
    """The third answer shares only its form with the ones before; a draft of theirs must not become part of it."""
    answers = {k: b'{"community": "%s"}' % v for k, v in (("a", b"perl"), ("b", b"java"), ("c", b"python"))}
    bench = Bench(answers)
    passes = []
    for text in "abcabcabc":
        before = len(bench.runtime.passes)
        assert bench.answer(text)[0] == answers[text].decode()
        passes.append(len(bench.runtime.passes) - before)
    assert passes[0] == 21  # 22 tokens; the stand-in guess, which is the last token, is right at "mm"
    assert max(passes[5:]) <= 4


def test_wrong_drafts_cost_no_more_passes_than_none() -> None:
    bench = Bench({"a": b"abcdefgh" * 4, "b": b"hgfedcba" * 4, "c": b"hgfedcbz" * 4})
    bench.answer("a")
    for text in "bc":
        before = len(bench.runtime.passes)
        assert bench.answer(text)[0] == bench.runtime.answers[text].decode()
        assert len(bench.runtime.passes) - before <= 33


def test_a_shared_prompt_is_read_once() -> None:
    bench = Bench({"first": b"x", "second": b"y"})
    bench.answer("first")
    before = len(bench.runtime.passes)
    bench.answer("second")
    assert bench.runtime.caches == 1
    assert len(bench.runtime.passes[before]) < 20  # "second", its border and a guess: not the system prompt again


def test_a_long_prompt_is_read_in_pieces_and_an_answer_that_outgrows_its_cache_goes_on() -> None:
    bench = Bench({"q" * 900: bytes(range(32, 127)) * 8})
    text, done = bench.answer("q" * 900)
    assert text.encode() == bytes(range(32, 127)) * 8
    assert done.completion_tokens == 95 * 8 + 1
    assert max(map(len, bench.runtime.passes)) <= 256 + 17
    assert bench.runtime.caches > 1


def test_an_answer_may_fill_the_context_to_its_last_token() -> None:
    prompt = len(f"<system>{SYSTEM['content']}<user>a") + 1
    bench = Bench({"a": b"z" * 500}, context_length=prompt + 40)
    text, done = bench.answer("a", max_tokens=400)
    assert (len(text), done.finish_reason, done.completion_tokens) == (40, "length", 40)


def test_a_prompt_that_fills_the_context_is_refused_with_both_lengths() -> None:
    prompt = len(f"<system>{SYSTEM['content']}<user>a") + 1
    bench = Bench({"a": b"z"}, context_length=prompt)
    bench.ask("a")
    bench.run()
    [refused] = bench.sent
    assert isinstance(refused, Refused)
    assert refused.code == "context_length_exceeded"
    assert str(prompt) in refused.message


@pytest.mark.parametrize("most", [1, 2, 5])
def test_max_tokens_ends_an_answer_with_length(most: int) -> None:
    bench = Bench({"a": b"abcdefgh"})
    for _ in range(3):  # with drafts too
        text, done = bench.answer("a", max_tokens=most)
        assert (text, done.finish_reason, done.completion_tokens) == ("abcdefgh"[:most], "length", most)


@pytest.mark.parametrize(
    ("stop", "shown", "tokens"),
    [(("def",), "abc", 6), (("h", "fg"), "abcde", 7), (("a",), "", 1), (("hx",), "abcdefgh", 9)],
)
def test_a_stop_string_across_tokens_ends_the_answer_and_never_shows(
    stop: tuple[str, ...], shown: str, tokens: int
) -> None:
    bench = Bench({"a": b"abcdefgh"})
    for _ in range(3):
        number = bench.ask("a", stop=stop, top_logprobs=0)
        bench.run()
        assert bench.text(number) == shown
        assert bench.done(number).finish_reason == "stop"
        assert bench.done(number).completion_tokens == tokens
        told = [t.text for e in bench.sent if isinstance(e, Piece) and e.id == number for t in e.tokens]
        assert "".join(told) == shown


def test_half_characters_are_withheld_and_their_tokens_keep_exact_bytes() -> None:
    bench = Bench({"a": "é😀!".encode()})
    number = bench.ask("a", top_logprobs=1)
    bench.run()
    pieces = [e for e in bench.sent if isinstance(e, Piece)]
    assert "".join(p.text for p in pieces) == "é😀!"
    assert all("\ufffd" not in p.text for p in pieces)
    tokens = [t for p in pieces for t in p.tokens]
    assert b"".join(t.bytes for t in tokens) == "é😀!".encode()
    assert tokens[0].text == "\ufffd"
    assert tokens[0].top[0].bytes == tokens[0].bytes
    assert bench.done(number).completion_tokens == 8


def test_a_model_that_gives_only_the_last_logits_is_decoded_token_by_token() -> None:
    bench = Bench({"a": b"abc"}, wide=False)
    bench.runtime.passes_of_one = True
    assert bench.answer("a")[0] == "abc"
    assert [len(p) for p in bench.runtime.passes[1:]] == [1, 1, 1]


def test_stepwise_passes_one_token_at_a_time_although_drafts_are_known() -> None:
    bench = Bench({"a": b"abc"})
    bench.answer("a")
    bench.answer("a")
    bench.runtime.passes_of_one = True
    before = len(bench.runtime.passes)
    assert bench.answer("a", stepwise=True)[0] == "abc"
    assert [len(p) for p in bench.runtime.passes[before + 1 :]] == [1, 1, 1]


def test_a_short_request_overtakes_a_long_one_by_turns() -> None:
    bench = Bench({"long": bytes(range(33, 127)) * 5, "short": b"no"})
    bench.ask("long")
    bench.schedule.turn()
    short = bench.ask("short")
    for _ in range(2 * SLICE):
        bench.schedule.turn()
    assert bench.text(short) == "no"
    assert not bench.schedule.idle
    bench.run()
    assert bench.text(1).encode() == bytes(range(33, 127)) * 5


def test_short_requests_run_in_order_and_share_one_cache() -> None:
    bench = Bench({str(n): b"%d" % n for n in range(SLOTS + 3)})
    numbers = [bench.ask(str(n)) for n in range(SLOTS + 3)]
    bench.run()
    assert [e.id for e in bench.sent if isinstance(e, Done)] == numbers
    assert bench.runtime.caches == 1


def test_a_cancelled_request_stops_at_once_whether_it_waits_or_decodes() -> None:
    bench = Bench({"long": bytes(range(33, 127)) * 5, "last": b"x"})
    for _ in range(SLOTS + 1):
        bench.ask("long")
    bench.schedule.turn()
    for number in range(1, SLOTS + 2):
        bench.schedule.take(Cancel(number))
    passes = len(bench.runtime.passes)
    assert bench.answer("last")[0] == "x"
    assert len(bench.runtime.passes) - passes <= 3
    assert [e.id for e in bench.sent if isinstance(e, Done)] == [SLOTS + 2]
    bench.schedule.take(Cancel(1))  # over already
    assert bench.schedule.idle


def test_a_request_that_fails_does_not_take_the_others_with_it(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench({"bad": b"xx", "good": b"fine"})
    bench.runtime.fails_on = "bad"
    bad, good = bench.ask("bad"), bench.ask("good")
    unknown = bench.ask("no such script")
    bench.run()
    refused = {e.id: e.code for e in bench.sent if isinstance(e, Refused)}
    assert refused == {bad: "decode_failed", unknown: "invalid_request"}
    assert bench.text(good) == "fine"
    assert "the runtime broke" in caplog.text
