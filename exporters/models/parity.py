"""How near an exported model is to its source, on conversations that neither has learnt from (where there are any).

    kl     mean over the answers' tokens of KL(source || exported) of what comes next, in nats
    top1   share of these tokens at which both find the same one likeliest

The conversations are the teacher's, so both models read the same tokens. These numbers find exports that are broken,
and say which of two roundings loses less; how much worse a good one answers is told by the task's own score, which the
gate bounds.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from exporters.models.devices import reading_device
from exporters.models.errors import ExportFailed

# Of answers: what is kept of the source, 200 KB a token at a vocabulary of 50,000. Of one answer: or one would fill it.
MOST_TOKENS, MOST_OF_ONE = 512, 64

_NOTHING = "there is nothing to compare the exported model on: no held-out answer, and none that was learnt from"

Tokens = Sequence[int]
Read = Callable[[Tokens, Tokens], Any]
Part = Literal["held-out", "training"]


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """`tokens`: of how many; `answers`: of so many answers; `of`: the part of the data set that they are from."""

    kl: float
    top1: float
    tokens: int
    answers: int
    of: Part = "held-out"


def parity(
    source: Path, exported: Callable[[], Read], rows: Sequence[tuple[Tokens, Tokens]], *, of: Part = "held-out"
) -> Parity:
    """Compare with the Hugging Face folder `source`, which is read first and let go. Raises ExportFailed without rows.

    `exported`: loads what was exported; it gives a function of (prompt, answer), token ids both, to the logits
    [answer's tokens, vocabulary] from which each of the answer's tokens is chosen. `rows`: prompts and answers; so many
    are read as MOST_TOKENS allows.
    """
    rows = _some(rows)
    if not rows:
        raise ExportFailed(_NOTHING)
    reader = hf_reader(source)
    known = [_log_softmax(reader(*row)) for row in rows]
    del reader
    read = exported()
    kl, same, tokens = 0.0, 0, 0
    for row, exact in zip(rows, known, strict=True):
        found = _log_softmax(read(*row))
        kl += _divergence(exact, found)
        same += _agreeing(exact, found)
        tokens += len(exact)
    return Parity(kl=kl / tokens, top1=same / tokens, tokens=tokens, answers=len(rows), of=of)


def choices_parity(exact: Any, found: Any, sizes: Sequence[int], *, of: Part = "held-out") -> Parity:
    """Of a student that chooses a value for each of some fields: each counts as a token. `exact`, `found`: logits
    [answers, values of all fields], of `sizes` values each. Raises ExportFailed without answers."""
    if not len(exact):
        raise ExportFailed(_NOTHING)
    import numpy as np  # noqa: PLC0415 - only an export pays for it

    kl, same, at = 0.0, 0, 0
    for size in sizes:
        p, q = (_log_softmax(np.asarray(rows)[:, at : at + size]) for rows in (exact, found))
        at += size
        kl += _divergence(p, q)
        same += _agreeing(p, q)
    tokens = len(exact) * len(sizes)
    return Parity(kl=kl / tokens, top1=same / tokens, tokens=tokens, answers=len(exact), of=of)


def require(found: Parity, max_kl: float, min_top1: float) -> None:
    """Raises ExportFailed for an export past a bound."""
    wrong = []
    if not found.kl <= max_kl:  # not a number is past it, too
        wrong.append(f"a mean KL of {found.kl:.3g} nats from its source, where {max_kl:g} are allowed")
    if found.top1 < min_top1:
        wrong.append(f"the same likeliest token at {found.top1:.1%} of places, where {min_top1:.0%} are asked for")
    if wrong:
        raise ExportFailed(
            f"the exported model is not its source: {' and '.join(wrong)} (on {found.tokens} tokens of {found.answers} "
            f"{found.of} answers; retrain.parity)"
        )


def hf_reader(folder: Path) -> Read:
    """Reads a dense Hugging Face folder, in float32: on the processors where the GPU has no room for that."""
    import torch  # noqa: PLC0415 - heavy: only an export pays for it
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    device = reading_device(model.get_memory_footprint())
    model.to(device)

    def read(prompt: Tokens, answer: Tokens) -> Any:
        ids = torch.tensor([[*prompt, *answer[:-1]]], device=device)
        with torch.inference_mode():
            return model(input_ids=ids, logits_to_keep=len(answer)).logits[0].float().cpu().numpy()

    return read


def _some(rows: Sequence[tuple[Tokens, Tokens]]) -> list[tuple[Tokens, Tokens]]:
    chosen: list[tuple[Tokens, Tokens]] = []
    left = MOST_TOKENS
    for prompt, answer in rows:
        if answer and left > 0:
            chosen.append((prompt, answer[: min(left, MOST_OF_ONE)]))
            left -= len(chosen[-1][1])
    return chosen


def _divergence(exact: Any, found: Any) -> float:
    """The sum over the rows of KL(exact || found), of log probabilities [rows, choices]."""
    import numpy as np  # noqa: PLC0415 - only an export pays for it

    return float((np.exp(exact) * (exact - found)).sum())


def _agreeing(exact: Any, found: Any) -> int:
    return int((exact.argmax(axis=-1) == found.argmax(axis=-1)).sum())


def _log_softmax(logits: Any) -> Any:
    import numpy as np  # noqa: PLC0415 - only an export pays for it

    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
