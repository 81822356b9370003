"""Artefacts in an object store: a real S3 client against a server on loopback, and a mounted folder."""

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from test_models_store import little_room, manifest

from exporters.models import ArtefactError, CorruptArtefact, ForbiddenFile, Manifest, MissingArtefact, Store
from exporters.models.errors import ArtefactsAway
from exporters.models.remote import Remote

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
SHARED = b"the base's tokenizer" * 1000


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("artefacts")
        yield "s3://artefacts"
    server.stop()


@pytest.fixture(params=["s3", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return f"file://{tmp_path}/mounted"


def machine(url: str, root: Path, **options: int) -> Store:
    """A machine's own copy of the store."""
    return Store(root, remote=Remote(url), **options)  # type: ignore[arg-type]


def publish(store: Store, name: str, weights: bytes = b"weights") -> Manifest:
    folder = store.staging(name)
    (folder / "model.onnx").write_bytes(weights)
    (folder / "sub").mkdir()
    (folder / "sub" / "tokenizer.json").write_bytes(SHARED)
    return store.add(folder, manifest(name))


def blobs(root: Path) -> set[str]:
    return {path.name for path in (root / "blobs").iterdir()}


def test_what_one_machine_makes_another_fetches_whole_and_once(url: str, tmp_path: Path) -> None:
    one, two = machine(url, tmp_path / "one"), machine(url, tmp_path / "two")
    made = publish(one, "v-1")
    assert two.manifest("v-1") == made, "known before it is fetched"
    assert not two.path("v-1").exists()
    folder = two.local("v-1")
    assert (folder / "model.onnx").read_bytes() == b"weights"
    assert (folder / "sub" / "tokenizer.json").read_bytes() == SHARED
    assert two.verify("v-1") == made
    assert list(two.ids()) == ["v-1"]
    assert sum(made.sizes.values()) == len(SHARED) + len(b"weights")


def test_what_artefacts_share_is_kept_and_fetched_once(url: str, tmp_path: Path) -> None:
    one, two = machine(url, tmp_path / "one"), machine(url, tmp_path / "two")
    first, second = publish(one, "v-1", b"first"), publish(one, "v-2", b"second")
    assert blobs(tmp_path / "one") == {*first.files.values(), *second.files.values()}
    two.verify("v-1")
    two.verify("v-2")
    both = [two.path(name) / "sub" / "tokenizer.json" for name in ("v-1", "v-2")]
    assert both[0].samefile(both[1])
    two.remove("v-1")
    two.sweep()
    assert blobs(tmp_path / "two") == set(second.files.values())
    assert two.verify("v-2") == second
    with pytest.raises(MissingArtefact, match="no artefact 'v-1'"):
        two.verify("v-1")
    assert one.verify("v-1") == first, "where it has been fetched it stays until that machine's own removal"


def test_files_of_no_manifest_go_once_they_are_old(tmp_path: Path) -> None:
    store = machine(f"file://{tmp_path}/mounted", tmp_path / "one")
    publish(store, "v-1")
    stray = tmp_path / "mounted" / "blobs" / ("0" * 64)
    stray.write_bytes(b"of a publication that was killed, or that goes on")
    store.sweep()
    assert stray.exists()
    os.utime(stray, (time.time() - 2 * 86_400,) * 2)
    store.sweep()
    assert not stray.exists()
    machine(f"file://{tmp_path}/mounted", tmp_path / "two").verify("v-1")


def test_a_look_that_fails_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = machine(f"file://{tmp_path}/mounted", tmp_path / "one")
    publish(store, "v-1")
    for blob in (tmp_path / "mounted" / "blobs").iterdir():
        os.utime(blob, (time.time() - 2 * 86_400,) * 2)

    def broken(*_: object, **__: object) -> list[str]:
        raise OSError("stale file handle")

    with monkeypatch.context() as away:
        away.setattr("fsspec.implementations.local.LocalFileSystem.ls", broken)
        with pytest.raises(ArtefactsAway, match="stale file handle"):
            store.sweep()
    (tmp_path / "mounted" / "manifests" / "v-2.json").write_text("{}")
    with pytest.raises(CorruptArtefact, match="no manifest"):
        store.sweep()
    machine(f"file://{tmp_path}/mounted", tmp_path / "two").verify("v-1")


def test_a_file_that_a_new_artefact_shares_is_new_again_so_that_no_sweep_takes_it(tmp_path: Path) -> None:
    store = machine(f"file://{tmp_path}/mounted", tmp_path / "one")
    made = publish(store, "v-1")
    shared = tmp_path / "mounted" / "blobs" / made.files["sub/tokenizer.json"]
    os.utime(shared, (time.time() - 2 * 86_400,) * 2)
    publish(machine(f"file://{tmp_path}/mounted", tmp_path / "two"), "v-2")
    assert time.time() - shared.stat().st_mtime < 60


def test_a_rotten_copy_on_this_machine_is_fetched_anew(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/mounted"
    one, two = machine(url, tmp_path / "one"), machine(url, tmp_path / "two")
    first, second = publish(one, "v-1", b"first"), publish(one, "v-2", b"second")
    two.verify("v-1")
    rotten = two.path("v-1") / "sub" / "tokenizer.json"
    rotten.chmod(0o644)
    rotten.write_bytes(b"rotten")
    assert two.verify("v-2") == second, "which shares that file"
    assert two.verify("v-1") == first
    assert rotten.read_bytes() == SHARED


def test_a_changed_file_is_not_taken_and_a_half_fetched_artefact_goes_on(tmp_path: Path) -> None:
    one = machine(f"file://{tmp_path}/mounted", tmp_path / "one")
    made = publish(one, "v-1")
    blob = tmp_path / "mounted" / "blobs" / made.files["sub/tokenizer.json"]
    right = blob.read_bytes()
    blob.write_bytes(b"something else")
    two = machine(f"file://{tmp_path}/mounted", tmp_path / "two")
    with pytest.raises(CorruptArtefact, match="has sha256"):
        two.verify("v-1")
    assert not two.path("v-1").exists()
    assert not list((tmp_path / "two").glob("*/v-1")), "nor is it half there"
    blob.write_bytes(right)
    (tmp_path / "mounted" / "blobs" / made.files["model.onnx"]).unlink()  # it has come before
    assert two.verify("v-1") == made


def test_a_fetch_that_ends_early_is_worth_another_try(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(machine(url, tmp_path / "one"), "v-1")
    two = machine(url, tmp_path / "two")
    assert two._remote is not None
    files = two._remote._files
    opened = files.open

    def cut_short(name: str, mode: str) -> io.BytesIO:
        with opened(name, mode) as file:
            return io.BytesIO(file.read()[: -1 if "/blobs/" in name else None])

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", cut_short)
        with pytest.raises(ArtefactsAway, match=r"only [0-9,]+ of [0-9,]+ bytes came"):
            two.verify("v-1")
    assert two.verify("v-1").id == "v-1"


def test_while_one_is_fetched_another_is_and_what_was_trained_is_placed(url: str, tmp_path: Path) -> None:
    one = machine(url, tmp_path / "one")
    made = [publish(one, f"v-{n}") for n in (1, 2)]
    two = machine(url, tmp_path / "two")
    meanwhile: list[Manifest] = []

    def unwanted() -> bool:
        if not meanwhile:
            meanwhile.append(two.verify("v-2"))
            meanwhile.append(publish(two, "v-3"))
            two.sweep()
        return False

    assert two.verify("v-1", unwanted) == made[0]
    assert meanwhile[0] == made[1]
    assert [two.verify(f"v-{n}").id for n in (1, 2, 3)] == ["v-1", "v-2", "v-3"]


def test_a_fetch_that_nobody_waits_for_ends(url: str, tmp_path: Path) -> None:
    publish(machine(url, tmp_path / "one"), "v-1")
    two = machine(url, tmp_path / "two")
    with pytest.raises(ArtefactsAway, match="nobody waits for it"):
        two.verify("v-1", lambda: True)
    assert not two.path("v-1").exists()
    assert two.verify("v-1").id == "v-1"


def test_an_artefact_above_the_limit_is_neither_added_nor_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"artefact_policy\.max_gb"):
        publish(machine(url, tmp_path / "one", most_bytes=1000), "v-1")
    publish(machine(url, tmp_path / "two"), "v-1")
    small = machine(url, tmp_path / "three", most_bytes=1000)
    with pytest.raises(ArtefactError, match=r"artefact_policy\.max_gb") as caught:
        small.verify("v-1")
    assert caught.value.retryable, "it is this machine's configuration"
    assert not small.path("v-1").exists()


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"model.pkl": "0" * 64}, ForbiddenFile),
        ({"../../evil.json": "0" * 64}, ForbiddenFile),
        ({"/etc/evil.json": "0" * 64}, ForbiddenFile),
        ({"model.onnx": "../manifests/v-1.json"}, CorruptArtefact),
    ],
)
def test_a_foreign_manifest_can_not_reach_out_of_the_store(
    files: dict[str, str], error: type[Exception], tmp_path: Path
) -> None:
    folder = tmp_path / "mounted" / "manifests"
    folder.mkdir(parents=True)
    evil = msgspec.structs.replace(manifest("v-1"), files=files)
    (folder / "v-1.json").write_bytes(msgspec.json.encode(evil))
    with pytest.raises(error):
        machine(f"file://{tmp_path}/mounted", tmp_path / "one").verify("v-1")
    assert list(tmp_path.rglob("evil.json")) == []


def test_a_store_that_is_away_may_be_asked_again_and_what_is_here_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Store(tmp_path / "one")
    publish(here, "v-1")
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    away = machine("s3://nowhere/x", tmp_path / "one")
    assert away.verify("v-1").id == "v-1"
    with pytest.raises(ArtefactsAway, match="s3://nowhere/x can't be used") as caught:
        away.verify("v-2")
    assert caught.value.retryable


def test_a_scheme_that_no_library_speaks_is_named() -> None:
    with pytest.raises(ArtefactError, match="gopher"):
        Remote("gopher://x/y")


def test_a_fetch_that_the_disk_has_no_room_for_leaves_no_half_file_and_is_tried_again(url: str, tmp_path: Path) -> None:
    publish(machine(url, tmp_path / "here"), "v-1", bytes(200_000))
    there = machine(url, tmp_path / "there")
    with little_room(), pytest.raises(ArtefactsAway, match=r"\.part can't be written: File too large") as caught:
        there.verify("v-1")
    assert caught.value.retryable
    assert not list((tmp_path / "there").rglob("*.part"))
    assert not there.path("v-1").exists()
    assert there.verify("v-1").sizes["model.onnx"] == 200_000
