"""The losses of on-policy learning and of DPO against trl's. Its DPO loss is inside its trainer: there the numbers are
held that `DPOTrainer` of trl 1.16.0 gave (type sigmoid, no reference model but its log probabilities, in float64).
"""

from typing import Any

import pytest
import torch
from torch import tensor

from retrainer.train.losses import generalised_jsd, preference

PLACES = torch.arange(35.0).reshape(5, 7)
STUDENT, TEACHER = 3 * torch.sin(PLACES), 3 * torch.cos(1.7 * PLACES)


@pytest.fixture(scope="module")
def trls() -> Any:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRL_EXPERIMENTAL_SILENCE", "1")  # it warns of what may change; the version here is pinned
        from trl.experimental.gkd import GKDTrainer

    return GKDTrainer.generalized_jsd_loss


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_generalised_jsd_is_trls(beta: float, temperature: float, trls: Any) -> None:
    ours = generalised_jsd(STUDENT, TEACHER, beta=beta, temperature=temperature)
    every = torch.zeros(1, len(STUDENT), dtype=torch.long)
    by_trl = trls(STUDENT[None], TEACHER[None], labels=every, beta=beta, temperature=temperature)
    assert ours.mean().item() == pytest.approx(by_trl.item(), rel=2e-6)


@pytest.mark.parametrize(("beta", "by_trl"), [(0.1, 0.660779013), (0.5, 0.589554801)])
def test_the_preference_loss_is_trls(beta: float, by_trl: float) -> None:
    # log probabilities of two tokens each, and the reference's of whole answers
    chosen = tensor([[-1.5, -0.5], [-2.0, -0.25], [-0.5, -3.0]]).sum(dim=1) - tensor([-2.5, -2.0, -4.5])
    rejected = tensor([[-1.0, -1.0], [-0.125, -4.0], [-2.5, -0.75]]).sum(dim=1) - tensor([-1.5, -5.0, -2.0])
    assert preference(chosen, rejected, beta=beta).mean().item() == pytest.approx(by_trl, rel=2e-6)
