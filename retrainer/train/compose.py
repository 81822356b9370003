"""Several adapters become one student."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from exporters.models import write_dense

DENSITY = 0.5  # of an adapter's values that TIES and DARE keep: ours; Yadav et al. and peft's guide take 0.2


def compose(base: Path, adapters: Sequence[Path], out: Path, *, how: str) -> None:
    """Combine adapters (peft folders of one rank) with the weight 1 each, merge them into `base`, and write `out`.
    `how`: peft's `combination_type`."""
    torch.manual_seed(0)  # DARE drops values at random
    names = [f"task{number}" for number in range(len(adapters))]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():  # peft asks transformers for an attribute under its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        student = PeftModel.from_pretrained(model, adapters[0], adapter_name=names[0])
        for name, adapter in zip(names[1:], adapters[1:], strict=True):
            student.load_adapter(adapter, adapter_name=name)
        more = {"density": DENSITY} if how in ("ties", "dare_ties") else {}
        student.add_weighted_adapter(names, [1.0] * len(names), "all", combination_type=how, **more)
        student.set_adapter("all")
    write_dense(student.merge_and_unload(), base, out)
