"""The sentence encoder: exported, checked against torch, and run by the collector."""

import asyncio
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from collector import CollectorError, Overloaded
from collector.embedding import Embedder, Encoder, Similarities, Vectors, nearness
from exporters.models.encoder_onnx import NEAR, PACKAGE, export_encoder, packaged_encoder
from exporters.models.errors import MissingArtefact


def packaged() -> bool:
    try:
        importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


pytestmark = pytest.mark.skipif(not packaged(), reason=f"the package {PACKAGE} is not installed")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 16 dimensions with random weights, and the real one's tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("bert")
    shape = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(shape, add_pooling_layer=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((packaged_encoder() / "tokenizer.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("encoder") / "minilm"
    manifest = export_encoder(made, source=source)
    assert manifest.dimensions == 16
    assert 0.0 <= manifest.difference <= NEAR
    return made


def test_the_folder_holds_the_graph_the_tokenizer_and_their_digests_and_nothing_else(folder: Path) -> None:
    written = json.loads((folder / "encoder.json").read_text())
    assert sorted(p.name for p in folder.iterdir()) == ["encoder.json", "model.onnx", "tokenizer.json"]
    assert sorted(written["files"]) == ["model.onnx", "tokenizer.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["minilm"]


def test_vectors_are_of_unit_length_and_the_same_alone_and_in_a_batch(folder: Path) -> None:
    encoder = Encoder(folder)
    texts = ["", "a", "How do I reset my password?", "word " * 600, "x" * 50_000]
    vectors = encoder.encode(texts)
    assert vectors.shape == (5, 16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert encoder.encode([text])[0] == pytest.approx(vector, abs=1e-5)


def test_a_long_text_is_read_to_its_end(folder: Path) -> None:
    encoder = Encoder(folder)
    long = "the same words again " * 200
    one, other = encoder.encode([long + "and yes", long + "completely different tail " * 60])
    assert nearness(one, other) < 1.0 - 1e-4


def test_nearness_is_the_cosine_and_nothing_below_zero() -> None:
    a = np.array([1.0, 0.0], dtype=np.float32)
    assert nearness(a, np.array([0.6, 0.8], dtype=np.float32)) == pytest.approx(0.6)
    assert nearness(a, -a) == 0.0
    assert nearness(a, a) == 1.0


def test_a_missing_or_changed_encoder_is_an_error_that_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CollectorError, match=r"holds no encoder; start with `retort up`"):
        Encoder(tmp_path / "minilm")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(CollectorError, match=r"tokenizer.json is missing or has changed"):
        Encoder(copy)
    (copy / "encoder.json").write_text("{")
    with pytest.raises(CollectorError, match="can't be read"):
        Encoder(copy)


def test_a_package_without_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.models.encoder_onnx.PACKAGE", "no-such-package")
    with pytest.raises(MissingArtefact, match="no-such-package, which is not installed"):
        export_encoder(tmp_path / "minilm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.train
def test_the_real_encoder_knows_what_is_alike(tmp_path: Path) -> None:
    manifest = export_encoder(tmp_path / "minilm")
    assert manifest.dimensions == 384
    similarity = Similarities(Encoder(tmp_path / "minilm").encode)
    asked = "How can I get a new password?"
    alike, unlike = similarity(asked, "I want to reset my password."), similarity(asked, "The soup needs more salt.")
    assert alike > 0.6 > 0.3 > unlike
    assert similarity(asked, asked) == pytest.approx(1.0, abs=1e-5)


class Slow:
    """Encodes nothing before it is let; a text is its length."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.let = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def encode(self, texts: Sequence[str]) -> Vectors:
        asyncio.run_coroutine_threadsafe(self.let.wait(), self.loop).result(10)
        self.passes.append(list(texts))
        if "bad" in texts:
            raise RuntimeError("it quotes bad")
        return np.array([[float(len(text))] for text in texts], dtype=np.float32)


async def test_what_comes_while_the_model_works_is_encoded_together() -> None:
    slow = Slow()
    embedder = Embedder(slow.encode, most_waiting=6)
    first = asyncio.create_task(embedder.vectors(["a"]))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(embedder.vectors(["bb" * n, "c"])) for n in (1, 2)]
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await embedder.vectors(["one", "too many"])
    slow.let.set()
    found = await asyncio.gather(first, *others)
    assert [f.ravel().tolist() for f in found] == [[1.0], [2.0, 1.0], [4.0, 1.0]]
    assert slow.passes == [["a"], ["bb", "c", "bbbb", "c"]]
    embedder.close()


async def test_a_model_that_fails_says_so_without_the_text_and_goes_on() -> None:
    slow = Slow()
    slow.let.set()
    embedder = Embedder(slow.encode)
    with pytest.raises(CollectorError, match=r"^the encoder failed: RuntimeError$"):
        await embedder.vectors(["bad"])
    assert (await embedder.vectors(["good"])).tolist() == [[4.0]]
    embedder.close()
