"""MiniLM with a linear head for all values: (n, t) ids and mask -> (n, values) logits.

Heads are fitted to the vectors of the encoder as it comes, and then all is trained together: so the first steps don't
spoil what the encoder knows (linear probing, then fine-tuning: Kumar et al. 2022). Its embedding table stays: it holds
half of the weights, and words that are not in the training set would drift apart from those that are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional

from exporters.models import sync
from exporters.models.closed_encoder import MOST_TOKENS
from exporters.models.encoder_onnx import load_encoder
from retrainer.data.render import Row
from retrainer.progress import Progress
from retrainer.train.loop import LoopSettings, Trained, plan, run
from retrainer.train.regression import of_each_class

SMOOTHING = 0.05  # of the labels: a teacher errs, too
ROWS = 64  # of a batch that is only read
STRENGTH = 20.0  # C of the heads' first logistic regression

Chosen = Sequence[tuple[int, ...]]


class ClosedEncoder(torch.nn.Module):  # type: ignore[misc]
    """`fields`: where each field's values are among the logits."""

    def __init__(self, source: Path, fields: Sequence[slice]) -> None:
        super().__init__()
        self.encoder = load_encoder(source)
        self.head = torch.nn.Linear(self.encoder.dimensions, fields[-1].stop)
        self.fields = tuple(fields)
        self.encoder.bert.embeddings.requires_grad_(False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits [n, values]."""
        return self.head(self.encoder(input_ids, attention_mask))

    def loss(self, logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Cross entropy, summed over the fields, [n]. `chosen` [n, fields]."""
        losses = [
            functional.cross_entropy(logits[:, at], chosen[:, n], label_smoothing=SMOOTHING, reduction="none")
            for n, at in enumerate(self.fields)
        ]
        return torch.stack(losses).sum(dim=0)


def encode(source: Path, texts: Sequence[str], weights: Sequence[float] | None = None) -> list[Row]:
    """Texts as tokens, as serving reads them; with their examples' weights, where those are to be learnt from."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.enable_truncation(MOST_TOKENS)
    tokenizer.no_padding()
    encoded = tokenizer.encode_batch([t[: MOST_TOKENS * 32] for t in texts])
    return [Row(e.ids, [], weight) for e, weight in zip(encoded, weights or [1.0] * len(texts), strict=True)]


def collate(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, [n, longest]."""
    ids = torch.zeros((len(rows), max(len(r.prompt) for r in rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for n, row in enumerate(rows):
        ids[n, : len(row.prompt)] = torch.tensor(row.prompt)
        mask[n, : len(row.prompt)] = 1
    return ids, mask


def read(model: Any, rows: Sequence[Row], *, progress: Progress | None = None) -> Any:
    """What a model makes of rows, [n, its width], as float32 array."""
    model.eval()
    by_length = sorted(range(len(rows)), key=lambda n: len(rows[n].prompt))
    found: dict[int, Any] = {}
    with torch.inference_mode():
        for at in range(0, len(by_length), ROWS):
            part = by_length[at : at + ROWS]
            out = model(*collate([rows[n] for n in part])).numpy()
            found.update(zip(part, out, strict=True))
            if progress:
                progress("read", at + len(part), len(rows), None)
    return np.array([found[n] for n in range(len(rows))], dtype=np.float32)


def begin(model: ClosedEncoder, rows: Sequence[Row], chosen: Chosen, *, progress: Progress) -> None:
    """Fit the heads to the encoder as it stands."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy

    vectors, labels = read(model.encoder, rows, progress=progress), np.array(chosen)
    weights = np.array([row.weight for row in rows])
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(-10.0)  # of values that no example has
        for number, at in enumerate(model.fields):
            seen = np.unique(labels[:, number])
            places = torch.from_numpy(seen + at.start)
            if len(seen) == 1:
                model.head.bias[places] = 0.0
                continue
            fitted = LogisticRegression(C=STRENGTH, max_iter=300, tol=1e-3).fit(vectors, labels[:, number], weights)
            slopes, bias = of_each_class(fitted)
            model.head.weight[places] = torch.from_numpy(slopes).float()
            model.head.bias[places] = torch.from_numpy(bias).float()


def train(
    model: ClosedEncoder,
    rows: Sequence[Row],
    chosen: Chosen,
    folder: Path,
    settings: LoopSettings,
    *,
    progress: Progress,
) -> Trained:
    """Train heads and encoder together; goes on from the last checkpoint. Raises TrainingDiverged, CycleError."""
    labels, weights = torch.tensor(np.array(chosen)), torch.tensor([row.weight for row in rows])
    torch.manual_seed(settings.seed)

    def loss_of(batch: list[int]) -> tuple[torch.Tensor, int]:
        ids, mask = collate([rows[n] for n in batch])
        each = weights[batch] * model.loss(model(ids, mask), labels[batch])
        return each.sum(), int(mask.sum())

    return run(model, plan(rows, settings), loss_of, folder, settings, progress=progress)


def save(model: ClosedEncoder, path: Path) -> None:
    """All weights, as safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    sync(path)


def load(source: Path, fields: Sequence[slice], path: Path) -> ClosedEncoder:
    """What `save` wrote."""
    model = ClosedEncoder(source, fields)
    model.load_state_dict(load_file(path))
    model.eval()
    return model
