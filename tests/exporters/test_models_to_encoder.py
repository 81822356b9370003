"""Encoders as artefacts: as their source computes, alone and among others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_encoder

from exporters.models.encoder_card import EncoderCard, read_card, write_card
from exporters.models.encoder_onnx import packaged_encoder
from exporters.models.encoder_session import EncoderSession, QueryTooLong, score
from exporters.models.errors import CorruptArtefact, ExportFailed, MissingArtefact
from exporters.models.int8 import quantize
from exporters.models.to_encoder import Exported, export_bi_encoder, export_cross_encoder

TEXTS = tiny_encoder.TEXTS
SHARED = (TEXTS[0], TEXTS[1], TEXTS[2] + " " + TEXTS[3], "a", "[SEP] [PAD] naïve 東京", "the red car " * 40)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def projected(root: Path) -> tuple[Path, Path, Exported]:
    """CLS pooling, a projection, a prompt: source, artefact, what was found."""
    source = tiny_encoder.bi_encoder(root / "projected", pooling="cls", dense=16, prefix="query: ")
    out = root / "projected-out"
    out.mkdir()
    return source, out, export_bi_encoder(source, out, shorter=(8, 4), texts=TEXTS[:10])


@pytest.fixture(scope="module")
def ranking(root: Path) -> tuple[Path, Path, Exported]:
    source, out = tiny_encoder.cross_encoder(root / "cross"), root / "cross-out"
    out.mkdir()
    asked = [(TEXTS[n], TEXTS[10 * n : 10 * n + 10]) for n in range(3)]
    return source, out, export_cross_encoder(source, out, asked=asked)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


def test_pooling_projection_norm_prompt_and_length_are_those_of_the_folder(
    projected: tuple[Path, Path, Exported],
) -> None:
    from sentence_transformers import SentenceTransformer

    source, out, exported = projected
    assert exported.card == EncoderCard(
        gives="vector", most_tokens=48, pad=0, dimensions=16, shorter=(4, 8), unit=True, prefix="query: "
    )
    session = EncoderSession.load(out, threads=1)
    wanted = SentenceTransformer(str(source), device="cpu").encode(list(SHARED[:4]))
    found = session.run([session.text(text) for text in SHARED[:4]])
    assert cosines(found, wanted).min() > 0.985
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_a_plain_folder_is_read_as_mean_and_norm(root: Path) -> None:
    from sentence_transformers import SentenceTransformer

    source, out = tiny_encoder.plain(root / "plain", most_tokens=10**30), root / "plain-out"
    out.mkdir()
    exported = export_bi_encoder(source, out)
    assert (exported.card.most_tokens, exported.card.dimensions) == (128, 32)  # as many as it has positions for
    session = EncoderSession.load(out, threads=1)
    wanted = SentenceTransformer(str(source), device="cpu").encode(texts := [*SHARED[:4], SHARED[-1]])
    assert cosines(session.run([session.text(text) for text in texts]), wanted).min() > 0.985


@pytest.mark.train
def test_the_real_encoder_keeps_its_vectors(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 beside sentence-transformers itself."""
    from sentence_transformers import SentenceTransformer

    source = packaged_encoder()
    exported = export_bi_encoder(source, tmp_path, texts=SHARED[:3])
    assert (exported.card.dimensions, exported.card.most_tokens) == (384, 256)
    texts = ["How can I get a new password?", "I want to reset my password.", "The soup needs more salt."]
    session = EncoderSession.load(tmp_path, threads=1)
    found = session.run([session.text(text) for text in texts])
    wanted = SentenceTransformer(str(source), device="cpu").encode(texts)
    assert cosines(found, wanted).min() > 0.98
    assert found[0] @ found[1] > 0.6 > 0.3 > found[0] @ found[2]


def test_neighbours_change_nothing(projected: tuple[Path, Path, Exported]) -> None:
    session = EncoderSession.load(projected[1], threads=1)
    rows = [session.text(text) for text in SHARED]
    together = session.run(rows)
    for row, vector in zip(rows, together, strict=True):
        assert session.run([row])[0] == pytest.approx(vector, abs=1e-5)


def test_golden_vectors_and_scores_come_out_again(
    projected: tuple[Path, Path, Exported], ranking: tuple[Path, Path, Exported]
) -> None:
    session = EncoderSession.load(projected[1], threads=1)
    assert len(projected[2].golden) == 4
    for entry in projected[2].golden:
        found = session.run([session.text(entry["input"])])[0]
        assert cosines(found, np.array(entry["vector"])) > entry["cosine"]
    session = EncoderSession.load(ranking[1], threads=1)
    for entry in ranking[2].golden:
        found = score(session.card, session.run([session.pair(entry["query"], d) for d in entry["documents"]]))
        assert found == pytest.approx(entry["scores"], abs=entry["tolerance"])


def test_a_cross_encoder_scores_as_its_source(ranking: tuple[Path, Path, Exported]) -> None:
    from sentence_transformers import CrossEncoder

    source, out, exported = ranking
    assert exported.card == EncoderCard(gives="score", most_tokens=48, pad=0, squash=True)
    session = EncoderSession.load(out, threads=1)
    pairs = [(TEXTS[20], document) for document in TEXTS[21:40]]
    found = score(session.card, session.run([session.pair(*pair) for pair in pairs]))
    wanted = CrossEncoder(str(source), device="cpu").predict(pairs)
    assert np.corrcoef(found, wanted)[0, 1] > 0.97
    assert np.abs(found - wanted).max() < 0.3 * np.ptp(wanted)


def test_raw_scores_where_the_folder_says_so(root: Path) -> None:
    source, out = tiny_encoder.cross_encoder(root / "raw", activation="linear.Identity"), root / "raw-out"
    out.mkdir()
    assert not export_cross_encoder(source, out).card.squash
    tiny_encoder.cross_encoder(root / "odd", activation="activation.Tanh")
    with pytest.raises(ExportFailed, match="scores through Tanh"):
        export_cross_encoder(root / "odd", out)


def test_what_is_too_long_is_cut_before_its_closing_mark(
    projected: tuple[Path, Path, Exported], ranking: tuple[Path, Path, Exported]
) -> None:
    session = EncoderSession.load(projected[1], threads=1)
    cut, short = session.text(SHARED[-1]), session.text("red")
    assert (len(cut.ids), cut.whole, cut.ids[0], cut.ids[-1]) == (48, False, 2, 3)
    assert short.whole
    assert not session.text("x" * 5_000_000).whole
    assert 3 not in session.text("[SEP] red").ids[1:-1]  # a mark that a text spells is text
    session = EncoderSession.load(ranking[1], threads=1)
    pair = session.pair("a red car", SHARED[-1])
    assert (len(pair.ids), pair.whole, pair.ids[-1]) == (48, False, 3)
    assert pair.kinds == sorted(pair.kinds)
    assert pair.ids.count(3) == 2
    for query in (SHARED[-1], " " * 100_000):
        with pytest.raises(QueryTooLong):
            session.pair(query, "red")


def test_what_cannot_be_exported_is_named(root: Path, tmp_path: Path) -> None:
    source = shutil.copytree(root / "projected" / "bi", tmp_path / "bi")
    with pytest.raises(ExportFailed, match="one, the score"):
        export_cross_encoder(tiny_encoder.cross_encoder(tmp_path / "three", labels=3), tmp_path)
    with pytest.raises(MissingArtefact, match=r"holds no config\.json"):
        export_bi_encoder(tmp_path / "nothing", tmp_path)
    pooling = source / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": "lasttoken"}))
    with pytest.raises(ExportFailed, match="mean or cls can be exported, not lasttoken"):
        export_bi_encoder(source, tmp_path)
    modules = json.loads((source / "modules.json").read_text())
    (source / "modules.json").write_text(json.dumps([*modules, {**modules[-1], "type": "a.b.LSTM"}]))
    with pytest.raises(ExportFailed, match="LSTM can't be exported"):
        export_bi_encoder(source, tmp_path)


def test_an_export_that_computes_something_else_is_refused(
    projected: tuple[Path, Path, Exported], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("exporters.models.int8.WEIGHT", 2.0)  # two bits
    with pytest.raises(ExportFailed, match=r"at worst, under 0\.98"):
        export_bi_encoder(projected[0], tmp_path)


def test_a_folder_that_is_not_what_its_card_says_is_corrupt(
    projected: tuple[Path, Path, Exported], tmp_path: Path
) -> None:
    folder = shutil.copytree(projected[1], tmp_path / "copy")
    write_card(folder, EncoderCard(gives="vector", most_tokens=48, pad=0, dimensions=17))
    with pytest.raises(CorruptArtefact, match="not what its card says"):
        EncoderSession.load(folder)
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(CorruptArtefact, match="holds no encoder that can be run"):
        EncoderSession.load(folder)
    (folder / "encoder_card.json").write_text('{"gives": "vector", "most_tokens": 48, "pad": 0, "dimensions": 0}')
    with pytest.raises(CorruptArtefact, match="a vector needs dimensions"):
        read_card(folder)


def test_a_graph_without_weights_is_not_quantized(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Abs", ["a"], ["b"])], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph), tmp_path / "abs.onnx")
    with pytest.raises(ExportFailed, match="no matrix of weights"):
        quantize(tmp_path / "abs.onnx", tmp_path / "out.onnx")
