"""What a fitted logistic regression of scikit-learn says of each class."""

from typing import Any


def of_each_class(fitted: Any) -> tuple[Any, Any]:
    """Weights [k, features] and bias [k]. Of two classes it keeps the difference of their logits alone, of which each
    then has half."""
    import numpy as np  # noqa: PLC0415 - only a cycle pays for it

    weights, bias = fitted.coef_, fitted.intercept_
    if len(bias) == 1:
        return np.vstack([-weights / 2, weights / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    return weights, bias
