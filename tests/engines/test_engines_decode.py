"""Decoding with a scripted model: shared passes, prompts in pieces, stop strings."""

import pytest
from engine_fakes import ScriptedRuntime

from gateway.engines.protocol import Cancel, Done, Event, Generate, Options, Piece, Refused, Started
from gateway.engines.schedule import BESIDE, PIECE, Schedule

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


def test_a_shared_prompt_is_read_once_also_where_another_still_decodes() -> None:
    bench = Bench({"first": b"x", "second": b"y" * 50, "third": b"z"})
    bench.answer("first")
    bench.ask("second")
    while not bench.runtime.steps[1:]:
        bench.schedule.turn()
    third = bench.ask("third")
    bench.run()
    assert bench.text(third) == "z"
    assert [len(tokens) < 20 for tokens in bench.runtime.passes] == [False, True, True]  # not the system prompt again


def test_a_long_prompt_is_read_in_pieces_none_of_which_is_one_token() -> None:
    for length in (900, 901, 902, 2 * PIECE):
        bench = Bench({"q" * length: bytes(range(32, 127)) * 8})
        text, done = bench.answer("q" * length)
        assert text.encode() == bytes(range(32, 127)) * 8
        assert done.completion_tokens == 95 * 8 + 1
        assert 1 < min(map(len, bench.runtime.passes)) <= max(map(len, bench.runtime.passes)) <= PIECE


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
    for _ in range(3):  # with the prompt in the cache, too
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


def test_requests_share_their_passes_and_join_and_leave_between_them() -> None:
    answers = {str(n): b"%d" % n * 20 * (n + 1) for n in range(5)}
    bench = Bench(answers)
    numbers = [bench.ask(text) for text in answers]
    bench.run()
    assert [bench.text(number) for number in numbers] == [text.decode() for text in answers.values()]
    assert max(bench.runtime.steps) == 5
    assert sum(bench.runtime.steps) == sum(
        map(len, answers.values())
    )  # the prompt brings the first, the end is one more
    assert [e.id for e in bench.sent if isinstance(e, Done)] == numbers
    assert bench.done(numbers[0]).batch > 2
    assert bench.answer("0")[1].batch == 1


def test_no_more_requests_than_rows_decode_at_once_and_the_others_wait_in_order() -> None:
    bench = Bench({str(n): b"%d" % n * 9 for n in range(8)}, count=3)
    numbers = [bench.ask(str(n)) for n in range(8)]
    bench.run()
    assert [e.id for e in bench.sent if isinstance(e, Done)] == numbers
    assert max(bench.runtime.steps) == 3


def test_where_memory_runs_out_the_youngest_wait_and_all_are_answered() -> None:
    prompt, said = len(f"<system>{SYSTEM['content']}<user>0") + 1, 400
    most = 3 * prompt + 2 * said
    bench = Bench({str(n): b"%d" % n * said for n in range(6)}, most=most, context_length=prompt + said + 1)
    numbers = [bench.ask(str(n)) for n in range(6)]
    bench.run()
    assert [bench.text(number) for number in numbers] == [str(n) * said for n in range(6)]
    assert [bench.done(number).completion_tokens for number in numbers] == [said + 1] * 6
    assert [e.id for e in bench.sent if isinstance(e, Done)] == numbers, "the oldest goes on"
    assert [e.id for e in bench.sent if isinstance(e, Started)] == numbers, "each begins once"
    assert max(bench.runtime.steps) > 2
    assert bench.runtime.rows.peak <= most
    paused = [tokens for tokens in bench.runtime.passes if bytes(tokens).rstrip(b"012345").endswith(b"\0")]
    assert any(bytes(tokens).rpartition(b"\0")[2] for tokens in paused), "some gave way, and were read again"


def test_a_paused_request_can_be_cancelled() -> None:
    prompt, said = len(f"<system>{SYSTEM['content']}<user>0") + 1, 400
    bench = Bench({str(n): b"%d" % n * said for n in range(2)}, most=2 * prompt + said, context_length=prompt + said)
    first, second = bench.ask("0"), bench.ask("1")
    while 1 in bench.runtime.steps[-1:] or len(bench.runtime.steps) < 10:
        bench.schedule.turn()
    while bench.runtime.steps[-1] == 2:
        bench.schedule.turn()
    before = bench.text(second)
    assert before, "it had begun"
    bench.schedule.take(Cancel(second))
    bench.run()
    assert bench.text(first) == "0" * said
    assert bench.text(second) == before
    assert bench.schedule.idle


def test_a_short_prompt_overtakes_a_long_one_and_decoding_goes_on_beside_it() -> None:
    long = "q" * 3000
    bench = Bench({"first": b"f" * 200, long: b"l", "short": b"no"})
    bench.ask("first")
    for _ in range(3):
        bench.schedule.turn()
    late, short = bench.ask(long), bench.ask("short")
    before, turns = len(bench.runtime.steps), 0
    while not bench.text(short):
        bench.schedule.turn()
        turns += 1
    assert not bench.text(late)
    assert len(bench.runtime.steps) - before == turns
    bench.run()
    assert (bench.text(1), bench.text(late)) == ("f" * 200, "l")
    beside = [len(tokens) for tokens in bench.runtime.passes[2:]]
    assert max(beside) <= BESIDE


def test_a_long_prompt_is_read_to_its_end_however_many_short_ones_come() -> None:
    bench = Bench({"q" * 2000: b"l", "short": b"s"})
    late = bench.ask("q" * 2000)
    for _ in range(2 * 2000 // BESIDE + 4):
        bench.ask("short")
        bench.schedule.turn()
    assert bench.text(late) == "l"


def test_a_cancelled_request_stops_at_once_whether_it_waits_reads_or_decodes() -> None:
    bench = Bench({"long": bytes(range(33, 127)) * 5, "q" * 999: b"y", "last": b"x"}, count=3)
    for text in ("long", "long", "q" * 999, "long"):
        bench.ask(text)
    for _ in range(4):
        bench.schedule.turn()
    kept = 2
    for number in (1, 3, 4):
        bench.schedule.take(Cancel(number))
    assert bench.answer("last")[0] == "x"
    assert bench.text(kept).encode() == bytes(range(33, 127)) * 5
    assert {e.id for e in bench.sent if isinstance(e, Done)} == {kept, 5}
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


def test_a_pass_that_fails_fails_those_who_took_part_and_the_next_are_answered() -> None:
    bench = Bench({"a": b"xx", "b": b"yy"})
    bench.ask("a")
    bench.schedule.turn()
    bench.ask("b")
    bench.runtime.steps_fail = True
    bench.run()
    assert {e.id: e.code for e in bench.sent if isinstance(e, Refused)} == {1: "decode_failed", 2: "decode_failed"}
    bench.runtime.steps_fail = False
    assert bench.answer("b")[0] == "yy"
