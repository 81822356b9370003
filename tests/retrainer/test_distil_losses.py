"""The losses of distillation against values computed by hand."""

import math
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from torch import tensor

from retrainer.train.batches import Batch
from retrainer.train.losses import (
    divergence,
    generalised_jsd,
    hidden_distance,
    mixture,
    preference,
    relation_divergence,
    soften,
    top_k_divergence,
    uncertain_targets,
)
from retrainer.train.objectives import Step, soft_and_hard
from router.policy_distil import DistilPolicy

LN2, LN3 = math.log(2), math.log(3)
EVEN = tensor([[0.0, 0.0]])
THREE_TO_ONE = tensor([[LN3, 0.0]])  # probabilities 3/4, 1/4


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-6)


def test_divergence_is_the_kl_of_the_softened_distributions_times_t_squared() -> None:
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert divergence(EVEN, soften(THREE_TO_ONE, 1.0)).item() == near(by_hand)
    root = math.sqrt(3)  # at T = 2 the odds 3 become their root
    p = root / (1 + root)
    softened = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert divergence(EVEN, soften(THREE_TO_ONE, 2.0), 2.0).item() == near(softened)
    assert divergence(THREE_TO_ONE, soften(THREE_TO_ONE, 3.0), 3.0).item() == near(0.0)
    two = divergence(torch.cat([EVEN, THREE_TO_ONE]), soften(torch.cat([THREE_TO_ONE] * 2), 1.0))
    assert two.tolist() == [near(by_hand), near(0.0)]  # token by token


class Knowing:
    """A teacher whose hidden states are the logits that it is given, [N, V]."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.config, self._logits = object(), logits

    def get_decoder(self) -> Any:
        return lambda **read: SimpleNamespace(last_hidden_state=self._logits[None])

    def get_output_embeddings(self) -> Any:
        return torch.nn.Identity()


def test_soft_and_hard_targets_have_their_shares_token_by_token() -> None:
    """alpha 0.7 of T^2 KL at T = 2, 0.3 of the cross-entropy: the student knows nothing, and the teacher two tokens."""
    labels = tensor([[0, 1]])
    batch = Batch(torch.zeros(1, 0), labels, labels, torch.zeros_like(labels), torch.ones(2), tensor([False, False]))
    teacher = Knowing(torch.cat([THREE_TO_ONE, EVEN]))
    objective = soft_and_hard(teacher, DistilPolicy(temperature=2.0, alpha=0.7))
    found = objective(Step([0], batch, torch.cat([EVEN, THREE_TO_ONE]), labels[0]))
    p = math.sqrt(3) / (1 + math.sqrt(3))
    first = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    second = 4 * 0.5 * (math.log(0.5 / p) + math.log(0.5 / (1 - p)))
    assert found.tolist() == [near(0.7 * first + 0.3 * LN2), near(0.7 * second + 0.3 * math.log(4))]
    settled = msgspec.structs.replace(batch, settled=tensor([False, True]))
    found = objective(Step([0], settled, torch.cat([EVEN, THREE_TO_ONE]), labels[0]))
    assert found.tolist() == [near(0.7 * first + 0.3 * LN2), near(math.log(4))], "no teacher has a say in what is right"


def test_at_a_high_temperature_divergence_is_the_squared_distance_of_centred_logits() -> None:
    student, teacher = tensor([[1.0, 2.0, -3.0]]), tensor([[0.5, -1.0, 0.5]])
    apart = student - teacher
    limit = float((apart - apart.mean()).square().sum()) / (2 * 3)
    assert divergence(student, soften(teacher, 100.0), 100.0).item() == pytest.approx(limit, rel=1e-2)


def test_top_k_divergence_puts_all_untold_tokens_into_one_bucket() -> None:
    student = tensor([[0.0, 0.0, 0.0, 0.0]])  # 1/4 each
    told = tensor([[0.5, 0.3]]).log()
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.3 * math.log(0.3 / 0.25) + 0.2 * math.log(0.2 / 0.5)
    assert top_k_divergence(student, tensor([[2, 0]]), told).item() == near(by_hand)
    padded = tensor([[math.log(0.5), math.log(0.3), -math.inf]])
    assert top_k_divergence(student, tensor([[2, 0, 0]]), padded).item() == near(by_hand)


def test_top_k_divergence_of_all_tokens_is_the_divergence_and_of_fewer_is_less() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 6), torch.randn(5, 6)
    logs = soften(teacher, 1.0)
    whole = divergence(student, logs)
    assert torch.allclose(top_k_divergence(student, torch.arange(6).expand(5, 6), logs), whole, atol=1e-4)
    some = logs.topk(2)
    part = top_k_divergence(student, some.indices, some.values)
    assert ((part > 0) & (part < whole)).all()


@pytest.mark.parametrize(
    ("beta", "by_hand"),
    [
        (0.0, 0.75 * math.log(1.5) + 0.25 * math.log(0.5)),  # KL(p || q)
        (1.0, 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)),  # KL(q || p)
        # m = (5/8, 3/8)
        (
            0.5,
            0.5 * (0.75 * math.log(1.2) + 0.25 * math.log(2 / 3)) + 0.5 * (0.5 * math.log(0.8) + 0.5 * math.log(4 / 3)),
        ),
        # m = 1/4 p + 3/4 q = (9/16, 7/16)
        (
            0.25,
            0.25 * (0.75 * math.log(4 / 3) + 0.25 * math.log(4 / 7))
            + 0.75 * (0.5 * math.log(8 / 9) + 0.5 * math.log(8 / 7)),
        ),
    ],
)
def test_the_generalised_jsd_lies_between_forward_and_reverse_kl(beta: float, by_hand: float) -> None:
    assert generalised_jsd(EVEN, THREE_TO_ONE, beta=beta).item() == near(by_hand)
    assert generalised_jsd(THREE_TO_ONE, THREE_TO_ONE, beta=beta).item() == near(0.0)


def test_a_mixture_is_the_weighted_mean_of_the_probabilities() -> None:
    mixed = mixture([EVEN, THREE_TO_ONE], [1.0, 3.0], 1.0).exp()
    assert mixed.tolist()[0] == [near(0.25 * 0.5 + 0.75 * 0.75), near(0.25 * 0.5 + 0.75 * 0.25)]
    assert torch.allclose(mixture([THREE_TO_ONE], [5.0], 2.0), soften(THREE_TO_ONE, 2.0))


def test_uncertain_targets_leave_what_is_sure_soften_what_is_not_and_correct_what_is_wrong() -> None:
    sure = uncertain_targets(tensor([[30.0, 0.0, 0.0]]), tensor([0]), temperature=4.0).exp()
    assert sure[0, 0].item() == near(1.0)
    # right at 3/4: T = 1 + 3 * 1/4 = 7/4, so the odds are 3^(4/7)
    odds = 3 ** (4 / 7)
    unsure = uncertain_targets(THREE_TO_ONE, tensor([0]), temperature=4.0).exp()
    assert unsure.tolist()[0] == [near(odds / (1 + odds)), near(1 / (1 + odds))]
    # wrong, at T = 1: p = (3/4, 1/4) with the label second; d = 1/2, l = 1/3, p' = (1/2, 1/2)
    wrong = uncertain_targets(THREE_TO_ONE, tensor([1]), temperature=1.0).exp()
    assert wrong.tolist()[0] == [near(0.5), near(0.5)]


def test_hidden_distance_is_relative_to_the_size_of_each_of_the_teachers_states() -> None:
    student, teacher = tensor([[1.0, 1.0], [0.0, 1.0]]), tensor([[3.0, 1.0], [0.0, 200.0]])
    assert hidden_distance(student, teacher).tolist() == [near((4 + 0) / (9 + 1)), near(199**2 / 200**2)]
    assert torch.allclose(hidden_distance(10 * student, 10 * teacher), hidden_distance(student, teacher))


def test_relation_divergence_compares_how_tokens_attend_whatever_the_width() -> None:
    # one head of width 1: scores of the teacher [[0, 0], [0, LN2]], of the student all 0
    teacher = tensor([[[0.0], [math.sqrt(LN2)]]])
    student = torch.zeros(1, 2, 3)
    second = 2 / 3 * math.log((2 / 3) / 0.5) + 1 / 3 * math.log((1 / 3) / 0.5)
    causal = tensor([[[True, False], [True, True]]])
    assert relation_divergence(student, teacher, causal, heads=1).tolist() == [[near(0.0), near(second)]]
    last = relation_divergence(student, teacher, causal[:, 1:], heads=1)
    assert last.tolist() == [[near(second)]]  # of a prefix nothing is asked; it is looked at
    longer = torch.cat([teacher, tensor([[[9.0]]])], dim=1), torch.cat([student, torch.ones(1, 1, 3)], dim=1)
    seen = tensor([[[True, False, False], [True, True, False]]])
    apart = relation_divergence(longer[1][:, [2, 0, 1]], longer[0][:, [2, 0, 1]], seen[:, :, [2, 0, 1]], heads=1)
    assert apart.tolist() == [[near(0.0), near(second)]]  # what isn't seen changes nothing


def test_preference_is_dpos_logistic_loss_of_the_margin() -> None:
    chosen, rejected = tensor([1.0, 0.0]), tensor([-1.0, 0.0])
    assert preference(chosen, rejected, beta=0.1).tolist() == [near(math.log(1 + math.exp(-0.2))), near(LN2)]


def test_every_loss_has_finite_gradients_also_where_probabilities_vanish() -> None:
    torch.manual_seed(0)
    labels, seen = tensor([0, 1, 2]), torch.ones(1, 3, 3, dtype=torch.bool).tril()
    extreme = tensor([[60.0, -60.0, 0.0, 0.0], [-60.0, 60.0, 0.0, 0.0], [0.0, 0.0, 0.0, 90.0]])
    told = tensor([[0.0, -math.inf], [-0.5, -1.5], [-0.1, -9.0]])
    for scale in (1.0, 40.0):
        z = (scale * torch.randn(3, 4)).requires_grad_()
        states = z[None]
        losses = [
            divergence(z, soften(extreme, 4.0), 4.0),
            divergence(z, uncertain_targets(extreme, labels, temperature=4.0)),
            divergence(z, mixture([extreme, z.detach()], [1.0, 1.0], 4.0), 4.0),
            top_k_divergence(z, tensor([[0, 0], [1, 2], [3, 0]]), told),
            *(generalised_jsd(z, extreme, beta=beta) for beta in (0.0, 0.5, 1.0)),
            hidden_distance(z, extreme),
            relation_divergence(states, extreme[None], seen, heads=2),
            preference(z[:, 0], z[:, 1], beta=0.1),
        ]
        for loss in losses:
            (gradient,) = torch.autograd.grad(loss.sum(), z, retain_graph=True)
            assert torch.isfinite(loss).all()
            assert torch.isfinite(gradient).all()
