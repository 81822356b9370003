"""The stickiness key of a conversation: taken from the request, and hashed with a salt before it goes anywhere."""

from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from collector import read_salt
from gateway.body import Body

_DIGEST_BYTES = 16


def load_salt(state: str) -> bytes:
    """The salt of a state folder, {state}/run/salt: the same for all workers. Raises CollectorError, OSError."""
    return read_salt(Path(state) / "run" / "salt")


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
