"""A trained encoder becomes an artefact that the engine serves: an int8 graph, the tokenizer, a card.

A bi-encoder gives a vector for a text, a cross-encoder a score for a query with a document. What was written is loaded
as the engine loads it and compared with its source in torch, alone and among others; past a bound it is refused. The
golden vectors and scores that come with it are what an engine must reproduce before it serves.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.models.encoder_card import GRAPH, TOKENIZER, EncoderCard, write_card
from exporters.models.encoder_modules import read_modules
from exporters.models.encoder_onnx import LOADING, PROBES, load_encoder, positions, write_graph
from exporters.models.encoder_session import EncoderSession, Tokens, score
from exporters.models.errors import ExportFailed, MissingArtefact
from exporters.models.int8 import quantize

LEAST_COSINE = 0.98  # of the worst probe; all-MiniLM-L6-v2 keeps .994
LEAST_EXPLAINED = 0.95  # of the variance of the source's scores
GOLDEN_COSINE = 0.999  # another processor rounds a value here and there; other weights are much further away
GOLDEN = 4
_QUERIES = ("How do I reset my password?", "python web framework", "Übergrößenträger naïve café 東京")
_PAIRS = tuple((query, PROBES) for query in _QUERIES)


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """`golden`: of the manifest. `report`: how near it is to its source, and by what."""

    card: EncoderCard
    golden: list[dict[str, Any]]
    report: dict[str, Any]


def export_bi_encoder(
    source: Path, out: Path, *, shorter: Sequence[int] = (), texts: Sequence[str] = PROBES
) -> Exported:
    """Into the existing, empty folder `out`.

    `source`: a folder of sentence-transformers, or of a Hugging Face encoder. `shorter`: the dimensions to which its
    vectors may be cut, where it was trained for them. `texts`: to compare on, held-out ones best. Raises
    MissingArtefact, ExportFailed.
    """
    modules, encoder = read_modules(source), load_encoder(source)
    card = EncoderCard(
        gives="vector",
        most_tokens=encoder.most_tokens,
        pad=_pad(encoder.bert),
        dimensions=encoder.dimensions,
        shorter=tuple(sorted(shorter)),
        unit=modules.steps[-1:] == (None,),
        prefix=modules.prefix,
    )
    session = _write(encoder, modules.transformer, out, card, inputs=("input_ids", "attention_mask"))
    probes = [*texts, "word " * card.most_tokens]
    rows = [session.text(text) for text in probes]
    wanted, alone, among = _asked(encoder, session, rows)
    cosines = [_cosine(w, f) for found in (alone, among) for w, f in zip(wanted, found, strict=True)]
    if not min(cosines) >= LEAST_COSINE:
        raise ExportFailed(
            f"the exported encoder's vectors have a cosine of {min(cosines):.4f} with its source's at worst, "
            f"under {LEAST_COSINE}"
        )
    golden = [
        {"input": text, "vector": [float(x) for x in vector], "cosine": GOLDEN_COSINE}
        for text, vector in [*zip(probes, alone, strict=True)][:GOLDEN]
    ]
    report = {"cosine": {"worst": min(cosines), "mean": sum(cosines) / len(cosines), "texts": len(probes)}}
    return Exported(card=card, golden=golden, report=report)


def export_cross_encoder(
    source: Path,
    out: Path,
    *,
    squash: bool | None = None,
    asked: Sequence[tuple[str, Sequence[str]]] = _PAIRS,
) -> Exported:
    """Into the existing, empty folder `out`.

    `source`: a Hugging Face folder of a sequence classifier with one label. `squash`: whether scores go through a
    sigmoid; by default what a config of sentence-transformers says, else they do. `asked`: queries with documents to
    compare on, held-out ones best. Raises MissingArtefact, ExportFailed.
    """
    ranker, inputs = _ranker(source)
    card = EncoderCard(
        gives="score",
        most_tokens=min(read_modules(source).most_tokens or 1 << 30, ranker.most_tokens),
        pad=_pad(ranker.classifier),
        squash=_squashes(source) if squash is None else squash,
    )
    session = _write(ranker, source, out, card, inputs=inputs)
    rows = [session.pair(query, document) for query, documents in asked for document in documents]
    wanted, alone, among = _asked(ranker, session, rows, kinds=len(inputs) == 3)
    explained = min(_explained(wanted, found) for found in (alone, among))
    if not explained >= LEAST_EXPLAINED:
        raise ExportFailed(
            f"the exported cross-encoder's scores explain {explained:.3f} of its source's variance, "
            f"less than {LEAST_EXPLAINED}"
        )
    scores, at, golden = score(card, alone), 0, []
    for query, documents in asked:
        found = scores[at : at + len(documents)]
        spread = float(found.max() - found.min())
        golden.append(
            {
                "query": query,
                "documents": [*documents],
                "scores": [float(x) for x in found],
                "tolerance": max(0.02 * spread, 1e-4),
            }
        )
        at += len(documents)
    report = {"explained": explained, "pairs": len(rows)}
    return Exported(card=card, golden=golden[:GOLDEN], report=report)


def _write(model: Any, source: Path, out: Path, card: EncoderCard, *, inputs: Sequence[str]) -> EncoderSession:
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        floats = Path(scratch) / "floats.onnx"
        write_graph(model, floats, output=card.gives, most_tokens=card.most_tokens, inputs=inputs)
        quantize(floats, out / GRAPH)
    shutil.copyfile(source / TOKENIZER, out / TOKENIZER)
    write_card(out, card)
    return EncoderSession.load(out)


def _ranker(source: Path) -> tuple[Any, tuple[str, ...]]:
    """The classifier, (n, t) ids, mask and kinds -> (n) logits, and the names of what it takes."""
    import torch  # noqa: PLC0415 - heavy: only an export pays for it
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415 - heavy

    if not (source / TOKENIZER).is_file():
        raise MissingArtefact(f"{source} is no cross-encoder's Hugging Face folder: it holds no {TOKENIZER}")
    try:
        classifier = AutoModelForSequenceClassification.from_pretrained(source, **LOADING).float().eval()
        told = AutoTokenizer.from_pretrained(source, local_files_only=True).model_input_names
    except (OSError, ValueError) as error:
        raise ExportFailed(f"{source} holds no cross-encoder that can be loaded: {error}") from error
    if classifier.config.num_labels != 1:
        raise ExportFailed(f"{source} has {classifier.config.num_labels} labels; a cross-encoder has one, the score")
    kinds = "token_type_ids" in told and int(getattr(classifier.config, "type_vocab_size", 0) or 0) > 1

    class Ranker(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.classifier = classifier
            self.most_tokens = positions(classifier.base_model)

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            given = {"token_type_ids": token_type_ids} if kinds else {}
            return self.classifier(input_ids=input_ids, attention_mask=attention_mask, **given).logits[:, 0]

    names = ("input_ids", "attention_mask", "token_type_ids")
    return Ranker().eval(), names if kinds else names[:2]


def _asked(model: Any, session: EncoderSession, rows: Sequence[Tokens], *, kinds: bool = False) -> tuple[Any, Any, Any]:
    """What the source says, and what the artefact says of each alone and of all at once."""
    import numpy as np  # noqa: PLC0415 - with torch, heavy
    import torch  # noqa: PLC0415 - heavy

    wanted = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.ids])
            more = [torch.tensor([row.kinds])] if kinds else []
            wanted.append(model(ids, torch.ones_like(ids), *more)[0].numpy())
    alone = np.concatenate([session.run([row]) for row in rows])
    return np.array(wanted), alone, session.run(rows)


def _cosine(one: Any, other: Any) -> float:
    import numpy as np  # noqa: PLC0415 - see above

    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))


def _explained(wanted: Any, found: Any) -> float:
    """1 - sum (wanted - found)^2 / sum (wanted - mean)^2; 0 where the source gives all the same score."""
    spread = float(((wanted - wanted.mean()) ** 2).sum())
    return 1.0 - float(((wanted - found) ** 2).sum()) / spread if spread > 1e-12 else 0.0


def _pad(transformer: Any) -> int:
    return int(getattr(transformer.config, "pad_token_id", None) or 0)


def _squashes(source: Path) -> bool:
    """A cross-encoder of sentence-transformers says what its scores go through; by default a sigmoid."""
    told = json.loads((source / "config.json").read_text("utf-8"))
    named = (told.get("sentence_transformers") or {}).get("activation_fn") or told.get(
        "sbert_ce_default_activation_function"
    )
    kind = str(named or "Sigmoid").rpartition(".")[2]
    if kind not in ("Sigmoid", "Identity"):
        raise ExportFailed(f"{source}: scores through {kind} can't be exported; say whether a sigmoid is meant")
    return kind == "Sigmoid"
