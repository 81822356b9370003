"""Does the student fail seldom enough? A binary test on the requests that it was given.

E = 1 for a failed request, also one that a fallback rescued (intention to treat). The null H0: P(E = 1 | past) >= p
is refuted by bets on p - E, l geometric on [0.01, 0.9] / (1 - p). Without a failure it takes about 1,150 requests at
p = 0.5% and 575 at 1% (alpha 5%).
"""

from router.sequential.mixture import Cusum, Mixture, grid


def passes(state: Mixture, error: float, p: float) -> Mixture:
    """One more request for the test that the rate is below p."""
    return state.step(p - error, grid(0.01, 0.9, 1.0 - p))


def watch(state: Cusum, error: float, p: float) -> Cusum:
    """One more request for the e-detector of a rate above p: x = E - p, l on [0.01, 0.9] / p."""
    return state.step(error - p, grid(0.01, 0.9, p))
