"""One token from one row of logits. Only worker processes import this."""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.engines.protocol import Options

Row = npt.NDArray[np.float32]


class Choice(msgspec.Struct, frozen=True):
    """A token, its natural log probability at temperature 1, and the likeliest tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Greedy at temperature 0; else nucleus sampling, one draw a token, so that a seed fixes the whole answer."""

    def __init__(self, options: Options) -> None:
        self._options = options
        seed = None if options.seed is None else options.seed & (2**64 - 1)
        self._random = np.random.Generator(np.random.PCG64(seed))

    def choose(self, logits: Row, allowed: npt.NDArray[np.bool_] | None = None) -> Choice:
        """`logits`: [vocabulary], float32. `allowed`: [vocabulary], which tokens may be chosen; log probabilities are
        of all. Raises FloatingPointError where a logit isn't finite."""
        most = float(logits.max())
        shifted = logits - most
        weights = np.exp(shifted)
        total = float(weights.sum(dtype=np.float64))
        if not math.isfinite(total) or not math.isfinite(most):
            raise FloatingPointError("the model computed logits that are not finite")
        if allowed is None:
            token = self._draw(shifted, weights)
        else:
            left = np.where(allowed, logits, np.float32(-np.inf))
            left -= left.max()
            token = self._draw(left, np.exp(left))
        normaliser = math.log(total)
        top: tuple[tuple[int, float], ...] = ()
        if count := min(self._options.top_logprobs or 0, logits.size):
            best = np.argpartition(shifted, -count)[-count:]
            best = best[np.argsort(-shifted[best], kind="stable")]
            top = tuple((int(i), float(shifted[i]) - normaliser) for i in best)
        return Choice(token, min(float(shifted[token]) - normaliser, 0.0), top)

    def _draw(self, shifted: Row, weights: Row) -> int:
        temperature = self._options.temperature
        if temperature < 1e-4:
            return int(shifted.argmax())
        if temperature != 1.0:
            weights = np.exp(shifted / np.float32(temperature))
        draw = self._random.random()
        if self._options.top_p >= 1.0:
            return _pick(np.cumsum(weights, dtype=np.float64), draw)
        order = np.argsort(-weights, kind="stable")
        cumulated = np.cumsum(weights[order], dtype=np.float64)
        # The smallest set of likeliest tokens that holds at least top_p of the mass; one token at the least.
        size = int(np.searchsorted(cumulated, self._options.top_p * cumulated[-1])) + 1
        return int(order[_pick(cumulated[:size], draw)])


def _pick(cumulated: npt.NDArray[np.float64], draw: float) -> int:
    """The index whose share of the mass holds `draw` in [0, 1)."""
    return min(int(np.searchsorted(cumulated, draw * cumulated[-1], side="right")), cumulated.size - 1)
