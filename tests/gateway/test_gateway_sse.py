"""Reading a stream on its way: the first real chunk, the end, and the engine's confidence."""

from itertools import pairwise

import pytest
from gateway_fakes import DONE, ERROR_EVENT, ROLE, event
from hypothesis import given
from hypothesis import strategies as st

from gateway.sse import ConfidenceFilter, Ending, Opening, complete, confidence, opening

TOOL = event({"tool_calls": [{"index": 0, "function": {"name": "f"}}]})


@pytest.mark.parametrize(
    ("held", "found"),
    [
        (b"", Opening.WAITING),
        (b": ping\n\n", Opening.WAITING),
        (b"retry: 3\n\n", Opening.WAITING),
        (ROLE, Opening.WAITING),
        (b'data: {"choices":[]}\n\n', Opening.WAITING),
        (event({"role": "assistant"}) + event({"content": ""}), Opening.WAITING),
        (ROLE + event({"content": "x"}), Opening.REAL),
        (ROLE.replace(b"\n", b"\r\n") + event({"content": "x"}).replace(b"\n", b"\r\n"), Opening.REAL),
        (TOOL, Opening.REAL),
        (event({"reasoning_content": "hm"}), Opening.REAL),
        (event({"refusal": "no"}), Opening.REAL),
        (event({}, "stop"), Opening.REAL),
        (b"data: not json\n\n", Opening.REAL),
        (b'data: {"choices":[3]}\n\n', Opening.REAL),
        (ROLE + ERROR_EVENT, Opening.ERROR),
        (event({"content": "x"}) + ERROR_EVENT, Opening.REAL),
        (b'data: {"error":null,"choices":[]}\n\n', Opening.WAITING),
        (b"event: error\ndata: x\n\n", Opening.ERROR),
        (ROLE + DONE, Opening.DONE),
        (b"data:[DONE]\r\n\r\n", Opening.DONE),
        (DONE + event({"role": "assistant"}), Opening.DONE),
        (event({"content": "an error"}), Opening.REAL),
    ],
)
def test_a_streams_beginning_is_judged_by_its_first_telling_event(held: bytes, found: Opening) -> None:
    assert opening(held) is found


@pytest.mark.parametrize(
    ("stream", "whole"),
    [
        (event({"content": "x"}) + DONE, True),
        (event({"content": "x"}) + b"data:[DONE]\r\n\r\n", True),
        (event({"content": "x"}) + b"data: [DONE]", True),
        (event({}, "stop"), True),
        (event({"content": "x"}), False),
        (event({"content": "data: [DONE]"}), False),
        (event({"content": "\ndata: [DONE]\n\n"}), False),
        (DONE + event({"content": "x"}), False),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_stream_is_whole_only_with_its_end_marker_or_a_finish_reason(stream: bytes, whole: bool, size: int) -> None:
    ending = Ending()
    for at in range(0, len(stream), size):
        ending.feed(stream[at : at + size])
    assert ending.whole is whole


def test_an_upstreams_own_error_event_is_noticed_and_an_answer_about_errors_is_not() -> None:
    told, calm = Ending(), Ending()
    told.feed(event({"content": "x"}) + ERROR_EVENT)
    calm.feed(event({"content": 'data: {"error": 1}'}) + event({"error": None}, "stop"))
    assert (told.told, calm.told) == (True, False)


@given(
    st.lists(
        st.sampled_from(
            [
                ROLE,
                event({"content": ": retort-confidence 1\n\n"}),
                b": ping\n\n",
                b": retort-confidence 0.5\n\n",
                b": retort\n\n",
                b"\n",
                b":\n",
                b"data: [DONE]\n\n",
            ]
        ),
        max_size=8,
    ),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_the_confidence_is_taken_out_however_the_stream_is_cut_into_chunks(parts: list[bytes], cuts: list[int]) -> None:
    comment = b": retort-confidence 0.5\n\n"
    raw = b"".join(parts)
    wanted = b"".join(part for part in parts if part != comment)
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    taking = ConfidenceFilter()
    out = b"".join(taking.feed(raw[a:b]) for a, b in pairwise(edges))
    assert out == wanted
    assert taking.confidence == (0.5 if comment in parts else None)


@given(st.lists(st.sampled_from([b"data: x", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r", b": c"]), max_size=10))
def test_complete_ends_behind_the_last_blank_line(parts: list[bytes]) -> None:
    data = b"".join(parts)
    end = complete(data)
    assert end == 0 or data[:end].endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
    assert not any(blank in data[end:] for blank in (b"\n\n", b"\r\n\r\n", b"\r\r"))


@pytest.mark.parametrize(("text", "value"), [("0.97", 0.97), (" 1 \r", 1.0), ("0", 0.0), ("nan", None), ("2", None)])
def test_a_confidence_is_a_number_from_zero_to_one(text: str, value: float | None) -> None:
    assert confidence(text) == value


def test_what_is_no_number_is_no_confidence() -> None:
    assert [confidence(text) for text in (None, "", "high", b"x")] == [None] * 4
