"""Several adapters become one student: what each makes of the base's weights (its task vector) is combined, by peft's
functions. Not the factors A and B, as peft's own weighted adapters: (B1 + B2)(A1 + A2) is no sum of what was learnt.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.merge_utils import dare_ties, task_arithmetic, ties
from transformers import AutoModelForCausalLM

from exporters.models import write_dense

DENSITY = 0.2  # of a task vector's values that TIES and DARE keep, as Yadav et al. do; of each matrix
_COMBINED: dict[str, Callable[[list[torch.Tensor], torch.Tensor], torch.Tensor]] = {
    "linear": task_arithmetic,
    "ties": partial(ties, density=DENSITY),
    "dare_ties": partial(dare_ties, density=DENSITY),
}


def compose(base: Path, adapters: Sequence[Path], out: Path, *, how: str) -> None:
    """Add to the weights of `base` what the adapters (peft folders) make of them, each with the weight 1, and write
    `out`. `how`: linear (the sum, task arithmetic), ties (the mean of the greatest values that agree in sign),
    dare_ties (as ties, of values that are drawn)."""
    torch.manual_seed(0)  # DARE drops values at random
    names = [f"task{number}" for number in range(len(adapters))]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():  # peft asks transformers for an attribute under its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        student = PeftModel.from_pretrained(model, adapters[0], adapter_name=names[0])
        for name, adapter in zip(names[1:], adapters[1:], strict=True):
            student.load_adapter(adapter, adapter_name=name)
    with torch.no_grad():
        for layer in (module for module in student.modules() if isinstance(module, LoraLayer)):
            vectors = [layer.get_delta_weight(name) for name in names]
            layer.get_base_layer().weight += _COMBINED[how](vectors, torch.ones(len(vectors)))
    write_dense(student.unload(), base, out)
