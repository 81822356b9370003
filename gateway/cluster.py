"""The stickiness key of a conversation: taken from the request, and hashed with a salt before it goes anywhere."""

import contextlib
import os
import secrets
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from gateway.body import Body

SALT_BYTES = 32
_DIGEST_BYTES = 16


def load_salt(state: str) -> bytes:
    """The salt of a state folder, {state}/run/salt: made once, readable by its owner alone, the same for all workers.

    A link is made or refused as one step, so of several workers that start at once one wins, and all read its salt.
    """
    path = Path(state) / "run" / "salt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        fresh = path.with_name(f"salt.{os.getpid()}.{secrets.token_hex(4)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_bytes(SALT_BYTES))
            os.fsync(handle)
        finally:
            os.close(handle)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(fresh)
        fresh.unlink()
    salt = path.read_bytes()
    if len(salt) != SALT_BYTES:
        raise OSError(f"{path}: holds {len(salt)} bytes instead of {SALT_BYTES}; remove it to get a new one")
    return salt


def cluster_key(salt: bytes, body: Body, session: bytes | None) -> str:
    """32 hex digits: a keyed hash of the session header, else of `metadata.session_id`, else of the opening.

    Source: architecture, "A request, step by step". The opening is the first system prompt and first user message,
    which stay the same from turn to turn.
    """
    digest = blake2b(key=salt, digest_size=_DIGEST_BYTES)
    if not session:
        metadata = body.top.get("metadata")
        named = metadata.get("session_id") if isinstance(metadata, dict) else None
        session = named.encode("utf-8", "surrogatepass") if isinstance(named, str) else None
    if session:
        digest.update(b"session\0" + session)
    else:
        for part in body.opening:
            data = _bytes(part)
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _bytes(content: Any) -> bytes:
    return content.encode("utf-8", "surrogatepass") if isinstance(content, str) else msgspec.json.encode(content)
