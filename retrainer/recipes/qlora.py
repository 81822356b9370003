"""QLoRA: LoRA over a base in 4 bits (NF4, its constants quantized once more; Dettmers et al. 2023), for bases that fit
into memory no other way. The adapter is merged into the unquantized base. bitsandbytes does it on a CPU, too."""

from functools import partial

from retrainer.job import Job
from retrainer.recipes.causal import Causal
from retrainer.recipes.lora import fit


class QLora(Causal):
    """See Recipe."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, partial(fit, method="qlora"))
