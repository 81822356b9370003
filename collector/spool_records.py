"""A spool's segments on disk.

    16 bytes of salt, then records: kind 1, length 4, sequence 8 (big-endian), AES-256-GCM(frame)

A segment's key is HKDF-SHA256(key, salt), a record's nonce its place in the segment, its head is authenticated with it.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from collector.errors import SpoolError
from collector.frames import PREFIX

SALT_BYTES = 16
FRAME, BEGUN = 1, 2

_HEAD = struct.Struct("!BIQ")
_TAG_BYTES = 16
_EXTRA = _HEAD.size + _TAG_BYTES


def record_size(frame: int) -> int:
    """Bytes of the record of a frame of so many."""
    return _EXTRA + frame


def segment_cipher(key: bytes, salt: bytes) -> AESGCM:
    """Of one segment."""
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"retort spool").derive(key))


def seal(cipher: AESGCM, kind: int, sequence: int, frame: bytes, *, start: int) -> bytes:
    """The record of a frame, to stand at `start` and nowhere else."""
    head = _HEAD.pack(kind, len(frame) + _TAG_BYTES, sequence)
    return head + cipher.encrypt(_nonce(start), frame, head)


def unseal(cipher: AESGCM, record: bytes, *, start: int) -> tuple[int, int, bytes]:
    """Inverse of seal: kind, sequence, frame. Raises SpoolError."""
    head = record[: _HEAD.size]
    kind, _, sequence = _HEAD.unpack(head)
    try:
        return kind, sequence, cipher.decrypt(_nonce(start), record[_HEAD.size :], head)
    except InvalidTag as error:
        raise SpoolError("a spooled frame can't be read: it was written with another key, or changed") from error


def records(path: Path, key: bytes, *, last: bool) -> Iterator[tuple[int, int, bytes]]:
    """A segment's records, as of unseal. `last`: of its process; its end may be a record that was cut, as the process
    was killed while it wrote, and is passed over.

    Raises SpoolError at the first that can't be read, which ends it; OSError.
    """
    with path.open("rb") as file:
        left = path.stat().st_size - SALT_BYTES
        salt = file.read(SALT_BYTES)
        cipher = segment_cipher(key, salt)
        start = SALT_BYTES
        while left >= _HEAD.size:
            head = file.read(_HEAD.size)
            size = _HEAD.unpack(head)[1]
            body = file.read(min(size, left - _HEAD.size))
            if len(body) < size:
                if not (last and _cut(cipher, body, size, start=start)):
                    raise SpoolError("a spooled frame can't be read: its end is missing, or its length was changed")
                return
            yield unseal(cipher, head + body, start=start)
            start += len(head) + size
            left -= len(head) + size
    if left and not last:
        raise SpoolError("a segment that others follow ends within a record")


def _cut(cipher: AESGCM, body: bytes, size: int, *, start: int) -> bool:
    """Whether a body that is too short is the beginning of one of this size: else it is the size that is wrong, and
    whole frames follow. The frame itself says its length; unauthenticated, so nothing else is made of it."""
    if len(body) < PREFIX.size:
        return True
    begins = cipher.encrypt(_nonce(start), body[: PREFIX.size], None)[: PREFIX.size]  # XOR with the same key stream
    header, bodies = PREFIX.unpack(begins)
    return bool(PREFIX.size + header + bodies + _TAG_BYTES == size)


def _nonce(start: int) -> bytes:
    return start.to_bytes(12, "big")
