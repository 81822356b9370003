"""Which artefacts may go."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_models_store import manifest, publish

from exporters.models import ArtefactError, Store
from exporters.models.collect import find, remove, unneeded
from router import Config, open_registry
from router.registry import Stage, Version
from router.tasks import TaskKind


def versions(*stages: Stage, route: str = "r") -> list[Version]:
    """The oldest first: r-0, r-1, ..."""
    return [
        Version(
            id=f"{route}-{n}", route=route, kind=TaskKind.CHAT, base="b", engine="local", artefact=f"{route}-{n}",
            created_at=float(n), stage=stage,
        )
        for n, stage in enumerate(stages)
    ]  # fmt: skip


OLD = (Stage.REJECTED, Stage.RETIRED, Stage.ROLLED_BACK, Stage.RETIRED)
SERVED = (Stage.LIVE, Stage.CANARY, Stage.SHADOW, Stage.CANDIDATE)


@pytest.mark.parametrize(("keep", "going"), [(0, [0, 1, 2, 3]), (1, [1, 2]), (2, [1]), (3, []), (9, []), (None, [])])
def test_what_serves_or_may_stays_and_of_the_others_the_newest(keep: int | None, going: list[int]) -> None:
    known = versions(*OLD, *SERVED)
    found = unneeded([known], [v.artefact for v in known], keep=keep)
    assert found.ended == [f"r-{n}" for n in going]
    assert found.unknown == []


def test_an_artefact_that_another_version_needs_stays_and_one_of_no_version_is_told_apart() -> None:
    known = versions(Stage.RETIRED, Stage.LIVE)
    shared = [known[0], msgspec.structs.replace(known[1], artefact="r-0")]
    assert unneeded([shared], ["r-0", "stray"], keep=0) == unneeded([[]], [], keep=0).__class__([], ["stray"])


def test_what_was_rejected_is_counted_apart() -> None:
    known = versions(Stage.RETIRED, *(Stage.REJECTED,) * 4, Stage.LIVE)
    assert unneeded([known], [v.artefact for v in known], keep=1).ended == ["r-1", "r-2", "r-3"]


def test_an_engine_misses_nothing_that_it_may_load(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "state": str(tmp_path),
        "upstreams": {"up": {"base_url": "http://127.0.0.1:1"}},
        "routes": {"r": {"teachers": ["up/m"]}},
        "artefact_policy": {"keep": 0},
    }
    store, registry = Store(tmp_path / "artefacts"), open_registry(f"sqlite:///{tmp_path}/registry.db")
    for version in versions(*OLD):
        registry.add_version(version)
        publish(store, version.artefact)
    without = Config.model_validate(settings)
    with_engine = Config.model_validate({**settings, "engines": {"local": {"max_loaded": 2}}})
    assert find(without, registry, store).ended == ["r-0", "r-1", "r-2", "r-3"]
    served = {v.artefact for v in registry.wanted("local", 2)}
    assert len(served) == 2
    assert set(find(with_engine, registry, store).ended) == {"r-0", "r-1", "r-2", "r-3"} - served
    registry.close()


def test_removal_frees_what_nobody_else_holds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, weights in (("v-1", b"one"), ("v-2", b"two")):
        folder = store.staging(name)
        (folder / "model.onnx").write_bytes(weights)
        (folder / "tokenizer.json").write_text("{}")
        store.add(folder, manifest(name))
    remove(store, ["v-1"])
    assert sorted(store.verify("v-2").files) == ["model.onnx", "tokenizer.json"]
    assert len(list((tmp_path / "blobs").iterdir())) == 2
    assert list(store.ids()) == ["v-2"]
    assert not store.path("v-1").exists()
    remove(store, ["v-2"])
    assert list((tmp_path / "blobs").iterdir()) == []


def test_the_folder_of_all_files_is_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no artefact id"):
        Store(tmp_path).path("blobs")
