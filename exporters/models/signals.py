"""What an answer's log probabilities say about it: the features that its confidence is computed from. Pure Python."""

import math
from collections.abc import Sequence

import msgspec

FEATURES = ("mean", "least", "first", "total", "length", "unsure", "finished", "novelty")
PREFIX_TOKENS = 8  # of an answer's beginning that a stream is judged by, before its first byte

# A log probability below this is taken for this: one token that surprised the model wholly must not outweigh the rest.
FLOOR = -20.0
_HALF = math.log(0.5)


class Signals(msgspec.Struct, frozen=True, array_like=True):
    """Of the tokens' natural log probabilities at temperature 1, the end token's included: `mean`, `least`, `first`,
    `total` (their sum). `length`: ln(1 + tokens). `unsure`: share of tokens with a probability under one half.
    `finished`: 1 where the answer came to its own end within these tokens, else 0.
    """

    mean: float
    least: float
    first: float
    total: float
    length: float
    unsure: float
    finished: float

    def features(self, novelty: float) -> tuple[float, ...]:
        """In the order of FEATURES."""
        return (
            self.mean,
            self.least,
            self.first,
            self.total,
            self.length,
            self.unsure,
            self.finished,
            novelty,
        )


def signals(logprobs: Sequence[float], *, finished: bool) -> Signals:
    """Of a whole answer. `finished`: it came to its own end, and was not cut off. Raises ValueError without a token."""
    if not logprobs:
        raise ValueError("an answer without a token has no confidence; there is at least its end token")
    kept = [max(p, FLOOR) for p in logprobs]
    total = math.fsum(kept)
    return Signals(
        mean=total / len(kept),
        least=min(kept),
        first=kept[0],
        total=total,
        length=math.log1p(len(kept)),
        unsure=sum(p < _HALF for p in kept) / len(kept),
        finished=float(finished),
    )


def prefix_signals(logprobs: Sequence[float], *, finished: bool, tokens: int = PREFIX_TOKENS) -> Signals:
    """Of an answer's first `tokens` tokens, or of the whole answer where it is no longer. `finished`: as of the whole
    answer; what ended only later had not ended yet. So it is the same however many tokens came in one pass."""
    return signals(logprobs[:tokens], finished=finished and len(logprobs) <= tokens)
