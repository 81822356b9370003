"""Who made an artefact: a signature of its manifest, and with it of every file's digest.

A secret that all share (HMAC-SHA256), or a pair of keys (Ed25519), of which engines need the public one alone.
"""

import hmac
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from exporters.models.errors import ArtefactError, CorruptArtefact
from exporters.models.manifest import Manifest
from router.config import SigningSettings


class Signing:
    """By the configuration; without keys nothing is signed, and nothing is asked for."""

    def __init__(self, settings: SigningSettings | None = None) -> None:
        """Raises ArtefactError where a key's file can't be used."""
        settings = settings or SigningSettings()
        self._secret = bytes.fromhex(settings.secret) if settings.secret else None
        self._private = _private(settings.private_key) if settings.private_key else None
        self._public = _public(settings.public_key) if settings.public_key else None
        if self._public is None and self._private is not None:
            self._public = self._private.public_key()

    @property
    def asked(self) -> bool:
        """Whether an artefact must be signed."""
        return self._secret is not None or self._public is not None

    def signed(self, manifest: Manifest) -> Manifest:
        """With its signature, where there is a key to sign with. Raises ArtefactError where one alone to verify by."""
        told = _told(msgspec.json.encode(manifest))
        if self._secret is not None:
            value = f"hmac-sha256:{hmac.digest(self._secret, told, sha256).hex()}"
        elif self._private is not None:
            value = f"ed25519:{self._private.sign(told).hex()}"
        elif self._public is not None:
            raise ArtefactError("artefacts must be signed here, and there is no private_key (signing.private_key)")
        else:
            return manifest
        return msgspec.structs.replace(manifest, signature=value)

    def check(self, artefact_id: str, data: bytes) -> None:
        """Raises CorruptArtefact for a manifest (as it is stored) that whoever holds the key has not signed."""
        if not self.asked:
            return
        signature = msgspec.json.decode(data).get("signature") or ""
        kind, _, value = str(signature).partition(":")
        told = _told(data)
        try:
            given = bytes.fromhex(value)
        except ValueError:
            given = b""
        if self._secret is not None:
            good = kind == "hmac-sha256" and hmac.compare_digest(hmac.digest(self._secret, told, sha256), given)
        else:
            good = kind == "ed25519" and self._verified(told, given)
        if not good:
            what = "has a signature of another key, or was changed" if signature else "is not signed"
            raise CorruptArtefact(f"artefact {artefact_id!r} {what}, and the configuration asks for one (signing)")

    def _verified(self, told: bytes, given: bytes) -> bool:
        try:
            if self._public is not None:
                self._public.verify(given, told)
                return True
        except InvalidSignature:
            pass
        return False


def _told(data: bytes) -> bytes:
    """What is signed: the manifest as it is stored, whatever fields another version of Retort gave it; keys in order,
    without the signature."""
    said = msgspec.json.decode(data)
    said.pop("signature", None)
    return msgspec.json.encode(said, order="sorted")


def _private(path: str) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(Path(path).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ArtefactError(f"signing.private_key: {path} can't be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ArtefactError(f"signing.private_key: {path} holds no Ed25519 key (`openssl genpkey -algorithm ed25519`)")
    return key


def _public(path: str) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise ArtefactError(f"signing.public_key: {path} can't be read: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ArtefactError(f"signing.public_key: {path} holds no Ed25519 key (`openssl pkey -pubout`)")
    return key
