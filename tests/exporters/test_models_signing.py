"""Signed manifests."""

import hmac
import json
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from test_models_store import manifest, publish

from exporters.models import ArtefactError, CorruptArtefact, Store
from exporters.models.manifest import NAME
from exporters.models.open_store import open_store
from exporters.models.remote import Remote
from exporters.models.signing import Signing
from router import Config
from router.config import SigningSettings

SECRET, OTHER = "0a" * 32, "0b" * 32


def pair(folder: Path) -> dict[str, str]:
    """Files of a private and a public key."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    return {"private_key": str(private), "public_key": str(public)}


def store(root: Path, **settings: str) -> Store:
    return Store(root, signing=Signing(SigningSettings(**settings)))


@pytest.mark.parametrize("kind", ["secret", "pair"])
def test_what_is_signed_is_loaded_and_nothing_else(kind: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    keys = {"secret": SECRET} if kind == "secret" else pair(tmp_path)
    reading = {"secret": SECRET} if kind == "secret" else {"public_key": keys["public_key"]}
    others = {"secret": OTHER} if kind == "secret" else pair(tmp_path / "other")
    path = publish(store(tmp_path / "a", **keys))
    found = store(tmp_path / "a", **reading).verify("v-1")
    assert found.signature.startswith("hmac-sha256:" if kind == "secret" else "ed25519:")
    with pytest.raises(CorruptArtefact, match="a signature of another key, or was changed"):
        store(tmp_path / "a", **others).verify("v-1")
    changed = msgspec.structs.replace(found, gate={"gate": "passed"})
    (path / NAME).chmod(0o644)
    (path / NAME).write_bytes(msgspec.json.encode(changed))
    with pytest.raises(CorruptArtefact, match="was changed"):
        store(tmp_path / "a", **reading).manifest("v-1")
    for forged in ("", "hmac-sha256:", "ed25519:00", "none:00", "ed25519:zz"):
        (path / NAME).write_bytes(msgspec.json.encode(msgspec.structs.replace(found, signature=forged)))
        with pytest.raises(CorruptArtefact, match="v-1"):
            store(tmp_path / "a", **reading).manifest("v-1")
    assert Store(tmp_path / "a").manifest("v-1").id == "v-1", "where nobody asks for a signature there need be none"


def test_a_signature_holds_for_manifests_of_other_versions_of_retort(tmp_path: Path) -> None:
    """With a field that this one doesn't know, or without one that it has."""
    path = publish(store(tmp_path / "a", secret=SECRET))
    said = json.loads((path / NAME).read_bytes())
    (path / NAME).chmod(0o644)
    for other in ({**said, "of_later": 1}, {k: v for k, v in said.items() if k != "sizes"}):
        del other["signature"]
        value = hmac.digest(bytes.fromhex(SECRET), msgspec.json.encode(other, order="sorted"), sha256).hex()
        (path / NAME).write_text(json.dumps({**other, "signature": f"hmac-sha256:{value}"}))
        assert store(tmp_path / "a", secret=SECRET).manifest("v-1").id == "v-1"


def test_what_is_fetched_keeps_its_manifest_byte_by_byte(tmp_path: Path) -> None:
    """A later version of Retort has made it, with a field that this one would leave out."""
    signing, url = Signing(SigningSettings(secret=SECRET)), f"file://{tmp_path}/mounted"
    publish(Store(tmp_path / "one", remote=Remote(url), signing=signing))
    file = tmp_path / "mounted" / "manifests" / "v-1.json"
    later = {**json.loads(file.read_bytes()), "of_later": 1}
    del later["signature"]
    value = hmac.digest(bytes.fromhex(SECRET), msgspec.json.encode(later, order="sorted"), sha256).hex()
    file.write_text(json.dumps({**later, "signature": f"hmac-sha256:{value}"}))
    two = Store(tmp_path / "two", remote=Remote(url), signing=signing)
    assert two.verify("v-1").id == two.verify("v-1").id == "v-1"
    assert (two.path("v-1") / NAME).read_bytes() == file.read_bytes()


def test_who_can_only_verify_can_not_publish(tmp_path: Path) -> None:
    keys = pair(tmp_path)
    with pytest.raises(ArtefactError, match="no private_key"):
        publish(store(tmp_path / "a", public_key=keys["public_key"]))
    publish(store(tmp_path / "a", private_key=keys["private_key"]))
    assert store(tmp_path / "a", private_key=keys["private_key"]).verify("v-1")


def test_a_key_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    rsa = tmp_path / "rsa.pem"
    rsa.write_bytes(
        generate_private_key(65537, 2048).private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    )
    for settings, why in (
        ({"private_key": str(tmp_path / "none.pem")}, "private_key: .*none.pem can't be read"),
        ({"private_key": str(rsa)}, "holds no Ed25519 key"),
        ({"public_key": str(rsa)}, r"public_key: .*rsa\.pem can't be read"),
    ):
        with pytest.raises(ArtefactError, match=why):
            Signing(SigningSettings(**settings))


@pytest.mark.parametrize(
    ("signing", "why"),
    [({"secret": "short"}, "64 hexadecimal digits"), ({"secret": SECRET, "public_key": "x"}, "not both")],
)
def test_settings_that_can_not_work_are_refused(signing: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SigningSettings(**signing)


def test_the_configurations_store_signs(tmp_path: Path) -> None:
    made = Config.model_validate(
        {"state": str(tmp_path), "upstreams": {}, "routes": {}, "artefact_policy": {"signing": {"secret": SECRET}}}
    )
    assert SECRET not in repr(made)
    folder = open_store(made).staging("v-1")
    (folder / "model.onnx").write_bytes(b"graph")
    assert open_store(made).add(folder, manifest()).signature
