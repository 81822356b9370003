"""A route's log, and the data sets that come of it."""

from typing import Any

from retrainer_fakes import CountedLog

from collector import Interactions, SubjectKeys
from retrainer.data.dataset import Dataset, Options, build
from router.policy_data import DataPolicy


class Route:
    """A log, and the data sets that come of it."""

    def __init__(self, log: CountedLog, keys: SubjectKeys) -> None:
        self.log, self._keys = log, keys

    def made(self, *, end: int | None = None, most: int = 5000, **options: Any) -> Dataset:
        policy = DataPolicy.model_validate(options.pop("policy", {}))
        interactions = Interactions(self.log, self._keys)
        how = Options(policy=policy, **options)
        return build(interactions, "colours", max_examples=most, end=end, options=how)


def sides(made: Dataset) -> dict[str, str]:
    """Where each record stands."""
    return {e.id: name for name in ("train", "validation", "test") for e in getattr(made, name)}
