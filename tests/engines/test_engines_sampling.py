"""Choosing a token."""

import math

import numpy as np
import pytest

from gateway.engines.protocol import Options
from gateway.engines.sampling import Sampler

LOGITS = np.array([2.0, 1.0, 0.0, -1.0, -30.0], dtype=np.float32)
LOGPROBS = LOGITS - math.log(float(np.exp(LOGITS.astype(np.float64)).sum()))


def test_temperature_zero_takes_the_likeliest_token_and_reports_the_models_own_probability() -> None:
    choice = Sampler(Options(temperature=0.0, top_logprobs=3)).choose(LOGITS)
    assert choice.token == 0
    assert choice.logprob == pytest.approx(LOGPROBS[0], abs=1e-6)
    assert [i for i, _ in choice.top] == [0, 1, 2]
    assert [p for _, p in choice.top] == pytest.approx(LOGPROBS[:3], abs=1e-6)


def test_log_probabilities_do_not_depend_on_the_temperature() -> None:
    for temperature in (0.3, 1.0, 2.0):
        choice = Sampler(Options(temperature=temperature, seed=1)).choose(LOGITS)
        assert choice.logprob == pytest.approx(LOGPROBS[choice.token], abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_follow_the_tempered_softmax(temperature: float) -> None:
    sampler = Sampler(Options(temperature=temperature, seed=7))
    counts = np.bincount([sampler.choose(LOGITS).token for _ in range(4000)], minlength=5)
    expected = np.exp(LOGITS / temperature) / np.exp(LOGITS / temperature).sum()
    assert counts / 4000 == pytest.approx(expected, abs=0.03)


def test_top_p_keeps_the_smallest_set_that_holds_its_mass() -> None:
    """Probabilities are .644, .237, .087, .032, 0: at 0.7 two tokens are left, at 0 only the likeliest."""
    for top_p, kept in ((0.7, {0, 1}), (0.9, {0, 1, 2}), (0.0, {0})):
        sampler = Sampler(Options(top_p=top_p, seed=3))
        assert {sampler.choose(LOGITS).token for _ in range(500)} == kept


def test_a_seed_fixes_the_draws_and_no_seed_does_not() -> None:
    flat = np.zeros(1000, dtype=np.float32)

    def draws(seed: int | None) -> list[int]:
        sampler = Sampler(Options(seed=seed))
        return [sampler.choose(flat).token for _ in range(8)]

    assert draws(5) == draws(5)
    assert draws(-1) == draws(-1)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError):
        Sampler(Options()).choose(np.array([0.0, bad], dtype=np.float32))
