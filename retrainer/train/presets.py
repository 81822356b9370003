"""What a recipe takes where the operator leaves it open. (Where other defaults are from: docs/training.md.)

LoRA's and QLoRA's alpha is 2r (Biderman et al. 2024, LoRA Learns Less and Forgets Less). Their rate falls with the root
of the rank: alpha / r is constant, and the updates of r directions add up with sqrt(r) (an argument of Kalajdzievski
2023, rsLoRA; the rule is ours). At r = 16 it is 4e-4, ours; at r = 64 that gives 2e-4, the rate of QLoRA's own r = 64
(Dettmers et al. 2023, table 9), whose alpha is an eighth of this one.

| r | alpha | rate |
|---|---|---|
| 8 | 16 | 5.7e-4 |
| 16 | 32 | 4e-4 |
| 64 | 128 | 2e-4 |
| 128 | 256 | 1.4e-4 |

Full fine-tuning takes a tenth of LoRA's rate at r = 16 (Schulman et al. 2025, LoRA Without Regret). A larger base wants
less, which the operator gives: 1e-4 for QLoRA from 33 billion weights on (the same table). Of weight decay full
fine-tuning takes 0.01, the default of PyTorch's AdamW; adapters take none, as QLoRA's.
"""

import math

from router.policy_student import RetrainPolicy

WEIGHT_DECAY = 0.01
_RATE, _RANK = 4e-4, 16


def alpha(retrain: RetrainPolicy) -> int:
    """LoRA's alpha: given, or 2r."""
    return retrain.lora_alpha or 2 * retrain.lora_rank


def learning_rate(retrain: RetrainPolicy, recipe: str) -> float:
    """The highest of the schedule: given, or the recipe's."""
    if retrain.learning_rate is not None:
        return retrain.learning_rate
    if recipe == "full":
        return _RATE / 10
    return _RATE * math.sqrt(_RANK / retrain.lora_rank)
