"""What an operator says about how students of closed answers learn."""

from pydantic import Field

from router.policy_fields import Strict


class ClosedPolicy(Strict):
    """`strength`: of the linear student, C of its logistic regression: more fits closer. `epochs`, `learning_rate`: of
    the encoder; 0 epochs leave it as it comes, and train its heads alone."""

    strength: float = Field(10.0, gt=0)
    epochs: float = Field(3.0, ge=0)
    learning_rate: float = Field(1e-4, gt=0)
