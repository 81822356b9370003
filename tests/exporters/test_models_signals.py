"""The features of a confidence, by hand."""

import math

import pytest

from exporters.models import FEATURES, prefix_signals, signals

LOGPROBS = [math.log(p) for p in (0.9, 0.5, 0.4, 1.0)]


def test_the_features_are_those_computed_by_hand() -> None:
    found = signals(LOGPROBS, finished=True)
    total = math.log(0.9 * 0.5 * 0.4)
    assert found.features(0.25) == pytest.approx(
        (total / 4, math.log(0.4), math.log(0.9), total, math.log(5), 0.25, 1.0, 0.25)
    )
    assert len(FEATURES) == len(found.features(0.25))


def test_one_half_is_not_unsure_and_an_impossible_token_counts_no_more_than_the_floor() -> None:
    assert signals([math.log(0.5)], finished=True).unsure == 0.0
    found = signals([-1000.0, 0.0], finished=False)
    assert (found.least, found.total, found.mean, found.unsure, found.finished) == (-20.0, -20.0, -10.0, 0.5, 0.0)


def test_a_prefix_is_the_first_tokens_and_ends_only_where_the_answer_does() -> None:
    assert prefix_signals(LOGPROBS, finished=True, tokens=2) == signals(LOGPROBS[:2], finished=False)
    assert prefix_signals(LOGPROBS, finished=True, tokens=4) == signals(LOGPROBS, finished=True)
    assert prefix_signals(LOGPROBS, finished=True, tokens=9) == signals(LOGPROBS, finished=True)
    assert prefix_signals(LOGPROBS, finished=False, tokens=9) == signals(LOGPROBS, finished=False)


def test_an_answer_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="without a token"):
        signals([], finished=True)
