"""How long the exported student takes for an answer, one after the other, as an engine without a queue."""

import time
from collections.abc import Callable, Sequence

import msgspec

from exporters.models import Messages
from retrainer.evaluation.metrics import quantile

LEAST, MOST = 20, 100  # answers
SECONDS = 2.0  # after which no more than LEAST are timed


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of whole answers; `p99` of few is little more than the slowest. `first_p95`: to the first token."""

    n: int
    p50: float
    p95: float
    p99: float
    first_p95: float


def measure_latency(
    answer: Callable[[Messages], object],
    prompts: Sequence[Messages],
    *,
    first: Callable[[Messages], object],
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency | None:
    """Time `answer`, and `first` that ends with the first token, on the prompts in turn; None without prompts."""
    if not prompts:
        return None
    taken, firsts = (_timed(one, prompts, seconds, clock) for one in (answer, first))
    p50, p95, p99 = (quantile(taken, share) for share in (0.5, 0.95, 0.99))
    return Latency(n=len(taken), p50=p50, p95=p95, p99=p99, first_p95=quantile(firsts, 0.95))


def _timed(
    answer: Callable[[Messages], object], prompts: Sequence[Messages], seconds: float, clock: Callable[[], float]
) -> list[float]:
    """Milliseconds; the first prompt is answered once unmeasured."""
    answer(prompts[0])
    taken: list[float] = []
    for prompt in prompts[:MOST]:
        began = clock()
        answer(prompt)
        taken.append(1000.0 * (clock() - began))
        if len(taken) >= LEAST and sum(taken) > 1000.0 * seconds:
            break
    return taken
