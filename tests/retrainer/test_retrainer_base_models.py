from pathlib import Path

import pytest

from retrainer.base_models import find, packaged_file
from retrainer.errors import BaseModelError


def test_a_local_folder_is_a_base_and_its_weights_are_its_revision(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    one = find(str(tmp_path), tmp_path / "state")
    assert one.folder == tmp_path
    weights.write_bytes(b"two")
    assert find(str(tmp_path), tmp_path / "state").revision != one.revision


def test_an_unknown_base_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        BaseModelError,
        match=r"neither a Hugging Face folder on this machine, nor SmolLM2-135M-Instruct, nor.*hf download",
    ):
        find("no/such-model", tmp_path)


def test_a_folder_of_pickled_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(BaseModelError, match="pickled weights are not loaded"):
        find(str(tmp_path), tmp_path / "state")


def test_the_packaged_model_is_found_without_importing_its_package() -> None:
    assert packaged_file("SmolLM2-135M-Instruct").stat().st_size > 90_000_000


def test_a_hub_id_is_found_in_the_cache_and_its_commit_is_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789" * 4
    model = tmp_path / "models--some--Model-1B"
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text(commit)
    snapshot = model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"weights")
    found = find("some/Model-1B", tmp_path / "state")
    assert (found.name, found.folder, found.revision) == ("Model-1B", snapshot, f"some/Model-1B@{commit}")
