"""When a cycle starts. Pure."""

from router.policy_student import RetrainPolicy


def due(policy: RetrainPolicy, *, new_examples: int, seconds_since: float | None, drifted: bool = False) -> str | None:
    """The reason to start a cycle now, or None: `new_examples`, `schedule` or `drift`.

    `new_examples`: usable answers logged since the data set of the last cycle. `seconds_since`: since the last cycle
    ended, None before the first: then there is no schedule to keep yet. A schedule without anything new to learn
    from is passed over, and so is a drift (`drifted`: inputs have shifted away from the last data set's).
    """
    if new_examples >= policy.min_new_examples:
        return "new_examples"
    if policy.every > 0 and seconds_since is not None and seconds_since >= policy.every and new_examples > 0:
        return "schedule"
    return "drift" if drifted and new_examples > 0 else None
