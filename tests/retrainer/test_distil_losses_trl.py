"""The losses of on-policy learning and of DPO against the numbers that trl gives, which is not installed here.

By trl 1.16.0, in float64: `GKDTrainer.generalized_jsd_loss` of the logits below with every label counted, and the loss
of `DPOTrainer` (type sigmoid, no reference model but its log probabilities) of the log probabilities below.
"""

import pytest
import torch
from torch import tensor

from retrainer.train.losses import generalised_jsd, preference

PLACES = torch.arange(35.0).reshape(5, 7)
STUDENT, TEACHER = 3 * torch.sin(PLACES), 3 * torch.cos(1.7 * PLACES)


@pytest.mark.parametrize(
    ("beta", "temperature", "by_trl"),
    [
        (0.0, 1.0, 2.337757480),
        (0.1, 1.0, 0.154195592),
        (0.5, 1.0, 0.358015046),
        (0.9, 1.0, 0.155136509),
        (1.0, 1.0, 2.305865958),
        (0.0, 2.0, 0.880156143),
        (0.1, 2.0, 0.072869511),
        (0.5, 2.0, 0.184105601),
        (0.9, 2.0, 0.072545643),
        (1.0, 2.0, 0.869834249),
    ],
)
def test_the_generalised_jsd_is_trls(beta: float, temperature: float, by_trl: float) -> None:
    ours = generalised_jsd(STUDENT, TEACHER, beta=beta, temperature=temperature)
    assert ours.mean().item() == pytest.approx(by_trl, rel=2e-6)


@pytest.mark.parametrize(("beta", "by_trl"), [(0.1, 0.660779013), (0.5, 0.589554801)])
def test_the_preference_loss_is_trls(beta: float, by_trl: float) -> None:
    # log probabilities of two tokens each, and the reference's of whole answers
    chosen = tensor([[-1.5, -0.5], [-2.0, -0.25], [-0.5, -3.0]]).sum(dim=1) - tensor([-2.5, -2.0, -4.5])
    rejected = tensor([[-1.0, -1.0], [-0.125, -4.0], [-2.5, -0.75]]).sum(dim=1) - tensor([-1.5, -5.0, -2.0])
    assert preference(chosen, rejected, beta=beta).mean().item() == pytest.approx(by_trl, rel=2e-6)
