"""What an operator says about a route's cycles besides how the student learns."""

from pydantic import Field

from router.policy_fields import Strict


class DriftPolicy(Strict):
    """A cycle starts when inputs have shifted away from the data set's. `threshold`: of the population stability index
    (PSI), above which Siddiqi 2006 calls a population shifted. `window`: inputs that are compared at a time."""

    threshold: float = Field(0.25, gt=0.0)
    window: int = Field(500, ge=50)
