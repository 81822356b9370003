import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporters.models import ArtefactError, CorruptArtefact, ForbiddenFile, Manifest, MissingArtefact, Store


def manifest(artefact_id: str = "v-1") -> Manifest:
    return Manifest(
        id=artefact_id,
        route="r",
        kind="chat",
        runtime="onnxruntime-genai",
        base="b",
        base_revision="1",
        quantization="int8",
        created_at=1.0,
        files={},
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artefacts")


def publish(store: Store, artefact_id: str = "v-1") -> Path:
    folder = store.staging(artefact_id)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "sub").mkdir()
    (folder / "sub" / "tokenizer.json").write_text("{}")
    store.add(folder, manifest(artefact_id))
    return store.path(artefact_id)


def test_an_added_artefact_verifies_and_its_manifest_names_every_file(store: Store) -> None:
    publish(store)
    found = store.verify("v-1")
    assert sorted(found.files) == ["model.onnx", "sub/tokenizer.json"]
    assert store.manifest("v-1") == found


def test_a_staged_folder_is_no_artefact_until_it_is_added(store: Store) -> None:
    folder = store.staging("v-1")
    (folder / "model.onnx").write_bytes(b"graph")
    with pytest.raises(MissingArtefact, match=r"no artefact 'v-1'"):
        store.verify("v-1")


def test_a_killed_attempt_leaves_nothing_for_the_next(store: Store) -> None:
    (store.staging("v-1") / "half.onnx").write_bytes(b"half")
    path = publish(store)
    assert not (path / "half.onnx").exists()


def test_what_was_staged_and_is_old_goes_with_what_it_holds_and_nothing_that_is_on_its_way(store: Store) -> None:
    killed, on_its_way = store.staging("v-1"), store.staging("v-2")
    for folder in (killed, on_its_way):
        (folder / "model.onnx").write_bytes(b"graph")
    long_ago = time.time() - 2 * 86_400
    os.utime(killed, (long_ago, long_ago))
    store.sweep()
    assert (killed.exists(), on_its_way.exists()) == (False, True)


def test_a_folder_without_a_manifest_is_replaced(store: Store) -> None:
    store.path("v-1").mkdir(parents=True)
    (store.path("v-1") / "stale.onnx").write_bytes(b"x")
    publish(store)
    assert sorted(store.verify("v-1").files) == ["model.onnx", "sub/tokenizer.json"]
    assert not (store.path("v-1") / "stale.onnx").exists()


def test_adding_again_changes_nothing(store: Store) -> None:
    publish(store)
    before = store.manifest("v-1")
    folder = store.staging("v-1")
    (folder / "model.onnx").write_bytes(b"another graph")
    assert store.add(folder, manifest()) == before
    assert not folder.exists()


def test_a_missing_file_is_named(store: Store) -> None:
    path = publish(store)
    (path / "model.onnx").unlink()
    with pytest.raises(MissingArtefact, match=r"model\.onnx is missing"):
        store.verify("v-1")


def test_a_truncated_file_is_named_with_both_digests(store: Store) -> None:
    path = publish(store)
    expected = store.manifest("v-1").files["model.onnx"]
    (path / "model.onnx").write_bytes(b"gra")
    with pytest.raises(CorruptArtefact) as raised:
        store.verify("v-1")
    assert "model.onnx" in str(raised.value)
    assert expected in str(raised.value)
    assert "3 bytes" in str(raised.value)


def test_a_manifest_that_is_no_json_is_corrupt(store: Store) -> None:
    path = publish(store)
    (path / "manifest.json").write_text("{")
    with pytest.raises(CorruptArtefact, match="is no manifest"):
        store.verify("v-1")


def test_a_file_that_the_manifest_does_not_name_is_refused(store: Store) -> None:
    path = publish(store)
    (path / "extra.json").write_text("{}")
    with pytest.raises(CorruptArtefact, match=r"extra\.json is not in its manifest"):
        store.verify("v-1")


def test_an_artefact_under_another_name_is_corrupt(store: Store) -> None:
    publish(store).rename(store.path("v-2"))
    with pytest.raises(CorruptArtefact, match="says that it is 'v-1'"):
        store.verify("v-2")


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "weights.pt", "state.pkl", "modeling.py", "model", "weights.model"]
)
def test_files_that_may_run_code_never_get_in(store: Store, name: str) -> None:
    folder = store.staging("v-1")
    (folder / name).write_bytes(b"x")
    with pytest.raises(ForbiddenFile, match="may run code"):
        store.add(folder, manifest())
    assert not store.path("v-1").exists()
    path = publish(store)
    (path / name).write_bytes(b"x")
    with pytest.raises(ForbiddenFile):
        store.verify("v-1")


def test_a_sentencepiece_tokenizer_may_be_there(store: Store) -> None:
    folder = store.staging("v-1")
    for name in ("model.safetensors", "tokenizer.model"):
        (folder / name).write_bytes(b"x")
    store.add(folder, manifest())
    assert set(store.verify("v-1").files) == {"model.safetensors", "tokenizer.model"}


def test_a_link_out_of_the_artefact_is_refused(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    folder = store.staging("v-1")
    (folder / "inside.json").symlink_to(outside)
    with pytest.raises(ForbiddenFile, match="lead out of the artefact"):
        store.add(folder, manifest())


def test_an_empty_folder_is_no_artefact(store: Store) -> None:
    with pytest.raises(ArtefactError, match="holds no file"):
        store.add(store.staging("v-1"), manifest())


@pytest.mark.parametrize("bad", ["", "../v", "a/b", ".hidden", "a b", "x" * 129])
def test_an_id_can_not_lead_out_of_the_store(store: Store, bad: str) -> None:
    with pytest.raises(ArtefactError, match="no artefact id"):
        store.path(bad)


def test_a_copy_that_the_disk_has_no_room_for_leaves_nothing_and_is_put_once_there_is(
    store: Store, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "model.onnx").write_bytes(bytes(200_000))
    with little_room(), pytest.raises(OSError, match="File too large"):
        store.put(made, manifest())
    assert list(store.ids()) == []
    assert not [file for file in store.path("x").parent.rglob("*") if file.is_file()]
    store.put(made, manifest())
    assert sorted(store.verify("v-1").files) == ["model.onnx"]


@contextmanager
def little_room() -> Iterator[None]:
    """No file may be larger than 100 kB: what comes then is what comes of a full disk."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
