"""Does the student keep its latency promise? Judged in time blocks, since slow requests come in spells.

V_b is the share of slow answers (failed ones are slow: intention to treat) among a block's student requests. The
null H0: E[V_b | past] >= q is refuted by bets on q - V_b, l geometric on [0.01, 0.9] / (1 - q). Assumes spells
shorter than a block; without blocks, spells of 50 requests promote a student at the boundary in most runs.
Each canary step is a test of its own, since load changes with the step: alpha is split evenly over the steps.
"""

import msgspec

from router.sequential.mixture import Floats, grid, log_factors


class Block(msgspec.Struct, frozen=True):
    """The block that is being filled. `index`: its number since the epoch, in block lengths; -1 before the first."""

    index: int = -1
    slow: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """V_b of a block with at least one request."""
        return self.slow / self.total


def add(block: Block, now: float, seconds: float, *, slow: int, total: int) -> tuple[Block, Block | None]:
    """Count answers that were reported at `now` (Unix seconds); also returns the block that they close, if any.

    Not the time when the requests came: slow answers are reported late, and each would be a block of its own.
    """
    index = int(now // seconds)
    if block.index in (-1, index):
        return Block(index, block.slow + slow, block.total + total), None
    return Block(index, slow, total), block


def passes(shares: Floats, q: float) -> Floats:
    """Log factors, one a block, of the test that the promise is kept."""
    return log_factors(q - shares, grid(0.01, 0.9, 1.0 - q))


def watch(shares: Floats, q: float) -> Floats:
    """Log factors of the e-detector of a broken promise: x = V_b - q, l on [0.01, 0.9] / q."""
    return log_factors(shares - q, grid(0.01, 0.9, q))
