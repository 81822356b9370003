"""Does the student fail seldom enough? A binary test on the requests that it was given.

E = 1 for a failed request, also one that a fallback rescued (intention to treat). The null H0: P(E = 1 | past) >= p
is refuted by bets on p - E, l geometric on [0.01, 0.9] / (1 - p). Without a failure it takes about 1,150 requests at
p = 0.5% and 575 at 1% (alpha 5%).

Failures come in spells: an engine that restarts fails whatever comes in that second. So the e-detector's bets stop at
1, where one failure at most doubles a bet's capital: the best bet on a rate of twice p, and 15 failures in a
row for an alarm. A version that fails outright is the hard stop's, after 10.

The test that promotes assumes P(E = 1 | past) >= p at every request: where failures only come ten in a row, a student
at p passes in most runs. The SLO test, to which a failure is a slow answer, judges blocks and must pass too.
"""

from router.sequential.mixture import Floats, grid, log_factors


def passes(errors: Floats, p: float) -> Floats:
    """Log factors, one a request, of the test that the rate is below p."""
    return log_factors(p - errors, grid(0.01, 0.9, 1.0 - p))


def watch(errors: Floats, p: float) -> Floats:
    """Log factors of the e-detector of a rate above p: x = E - p, l on [0.05, 1]."""
    return log_factors(errors - p, grid(0.05, 1.0, 1.0))
