"""Overlap of rankings, against hand-computed values and SciPy."""

import math
import random

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from router import kendall, mrr, ndcg_at_k, recall_at_k, score

IDS = st.lists(st.sampled_from("abcdefgh"), max_size=8, unique=True)


def test_recall_is_the_share_of_the_references_first_that_were_found() -> None:
    assert recall_at_k("abcd", "bdxa", 2) == 0.5  # of b, d only b is among a, b
    assert recall_at_k("abcd", "ba", 10) == 1.0
    assert recall_at_k("aab", "bc", 2) == 0.5  # a twice is one
    assert recall_at_k("ab", "", 3) == 1.0
    with pytest.raises(ValueError, match="k must be 1 or more"):
        recall_at_k("a", "a", 0)


def test_ndcg_discounts_a_gain_by_the_log_of_its_rank() -> None:
    gains = {"a": 3.0, "b": 2.0, "c": 1.0}
    ideal = 3.0 + 2.0 / math.log2(3) + 1.0 / 2.0
    assert ndcg_at_k("abc", gains, 3) == pytest.approx(1.0)
    assert ndcg_at_k("cxa", gains, 3) == pytest.approx((1.0 + 3.0 / 2.0) / ideal)
    assert ndcg_at_k("ba", gains, 1) == pytest.approx(2.0 / 3.0)
    assert ndcg_at_k("xa", ["a", "b"], 2) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert ndcg_at_k("abc", {"z": 0.0}, 3) == 1.0
    with pytest.raises(ValueError, match="0 or more"):
        ndcg_at_k("a", {"a": -1.0}, 1)


def test_mrr_is_one_over_the_first_relevant_rank() -> None:
    assert mrr("xyb", {"a", "b"}) == pytest.approx(1 / 3)
    assert mrr("axb", {"a", "b"}) == 1.0
    assert mrr("xxb", {"b"}) == 0.5
    assert mrr("xy", {"b"}) == mrr("", {"b"}) == 0.0


def test_kendall_by_hand() -> None:
    assert kendall("abcd", "abcd") == 1.0
    assert kendall("abcd", "dcba") == -1.0
    assert kendall("abcd", "abdc") == pytest.approx(4 / 6)  # one of six pairs the other way round
    # c is missing from the second list, so tied with nothing there but behind its last: the order a, b, c of both.
    assert kendall("abc", "ab") == 1.0
    # d and e are each missing from one list: in the first d is 2, e behind; in the second the other way round.
    assert kendall("abd", "abe") == pytest.approx((1 + 4 - 1) / 6)
    # Two missing ids are tied: 5 of the 6 pairs are untied in the second list, and all of them agree.
    assert kendall("abcd", "ab") == pytest.approx(5 / math.sqrt(6 * 5))


def test_kendall_where_nothing_is_ordered_is_whether_the_lists_are_equal() -> None:
    assert kendall("a", "a") == kendall("", "") == 1.0
    assert kendall("ab", "") == kendall("", "a") == 0.0


@settings(deadline=None)  # the first one imports SciPy
@drawn(IDS, IDS)
def test_kendall_is_scipys_tau_b_of_the_ranks_with_missing_ids_tied_at_the_end(one: list[str], two: list[str]) -> None:
    from scipy.stats import kendalltau

    ids = sorted({*one, *two})
    first = [one.index(i) if i in one else len(one) for i in ids]
    second = [two.index(i) if i in two else len(two) for i in ids]
    expected = kendalltau(first, second).statistic if len(ids) > 1 else math.nan
    got = kendall(one, two)
    assert got == pytest.approx(kendall(two, one))
    assert -1.0 <= got <= 1.0
    if not math.isnan(expected):
        assert got == pytest.approx(expected)


def test_the_longest_common_subsequence_is_that_of_the_textbook() -> None:
    """Against dynamic programming, on random words."""
    draw = random.Random(3)
    for _ in range(200):
        a, b = (draw.choices("abcd", k=draw.randrange(1, 30)) for _ in range(2))
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
        got = score(
            "rouge_l", answer={"content": " ".join(a)}, reference={"content": " ".join(b)}, finish_reason="stop"
        )
        assert got.value == pytest.approx(2 * table[-1][-1] / (len(a) + len(b)))


def test_a_very_long_text_is_compared_up_to_a_bound() -> None:
    long = "word " * 300_000
    assert score("rouge_l", answer={"content": long}, reference={"content": long}, finish_reason=None).value == 1.0
