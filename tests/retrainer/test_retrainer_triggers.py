import pytest

from retrainer.triggers import due
from router.policy_student import RetrainPolicy

POLICY = RetrainPolicy(min_new_examples=500, every="24h")  # type: ignore[arg-type]
DAY = 86400.0


@pytest.mark.parametrize(
    ("new", "since", "reason"),
    [
        (499, None, None),
        (500, None, "new_examples"),
        (500, 1.0, "new_examples"),
        (499, DAY - 1, None),
        (1, DAY, "schedule"),
        (0, 10 * DAY, None),
    ],
)
def test_a_cycle_is_due_by_examples_or_by_schedule(new: int, since: float | None, reason: str | None) -> None:
    assert due(POLICY, new_examples=new, seconds_since=since) == reason


def test_a_schedule_of_zero_is_off() -> None:
    off = RetrainPolicy(min_new_examples=500, every=0)
    assert due(off, new_examples=499, seconds_since=100 * DAY) is None
