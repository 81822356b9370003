"""Does the student keep its latency promise? Judged in time blocks, since slow requests come in spells.

V_b is the share of slow answers (failed ones are slow: intention to treat) among a block's student requests. The
null H0: E[V_b | past] >= q is refuted by bets on q - V_b, l geometric on [0.01, 0.9] / (1 - q). Assumes spells
shorter than a block; without blocks, spells of 50 requests promote a student at the boundary in most runs.
Each canary step is a test of its own, since load changes with the step: alpha is split evenly over the steps.
"""

import msgspec

from router.sequential.mixture import Cusum, Mixture, grid


class Block(msgspec.Struct, frozen=True):
    """The block that is being filled. `index`: its number since the epoch, in block lengths; -1 before the first."""

    index: int = -1
    slow: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """V_b of a block with at least one request."""
        return self.slow / self.total


def add(block: Block, now: float, seconds: float, *, slow: bool) -> tuple[Block, Block | None]:
    """Count an answer that was reported at `now` (Unix seconds, never before the last one's); also returns the block
    that this one closes, if any.

    Not the time when the request came: slow answers are reported late, and each would be a block of its own.
    """
    index = int(now // seconds)
    if block.index in (-1, index):
        return Block(index, block.slow + slow, block.total + 1), None
    return Block(index, int(slow), 1), block


def passes(state: Mixture, share: float, q: float) -> Mixture:
    """One more block for the test that the promise is kept."""
    return state.step(q - share, grid(0.01, 0.9, 1.0 - q))


def watch(state: Cusum, share: float, q: float) -> Cusum:
    """One more block for the e-detector of a broken promise: x = V_b - q, l on [0.01, 0.9] / q."""
    return state.step(share - q, grid(0.01, 0.9, q))
