"""What gateway and collector say to each other about masking, over a Unix socket of its own.

Both ways a message is a big-endian 32-bit length and MessagePack. Requests may overtake each other, so ids tell whose
an answer is. Nothing of it is kept.
"""

import struct
from pathlib import Path

import msgspec

from collector.frames import socket_path

LENGTH = struct.Struct("!I")
MOST_BYTES = 256 << 20
MASK_SECONDS = 15.0  # that an answer may take: Rampart reads 12 KB in a second

# What a request may be refused for, and would be again.
OF_THE_REQUEST = {
    "field_too_long": "a text of it is longer than 200000 characters",
    "not_json": "it is not JSON that can be read",
    "not_text": "it holds an image, a sound or a file",
    "too_deep": "it is nested too deep",
    "too_many_alike": "it names so many alike that they could not be told apart",
    "unknown_type": "it holds a value of an unknown type",
}


class MaskRequest(msgspec.Struct, frozen=True, array_like=True):
    """`body`: a chat request, as the client sent it. `cluster`: its conversation."""

    id: int
    route: str
    cluster: str
    body: bytes


class MaskReply(msgspec.Struct, frozen=True, array_like=True):
    """`body`: the request for a teacher. `pairs`: surrogate -> original. `refused`: why there is neither, else ""."""

    id: int
    body: bytes = b""
    pairs: dict[str, str] = {}
    refused: str = ""


_encoder = msgspec.msgpack.Encoder()


def packed(message: MaskRequest | MaskReply) -> bytes:
    """A message with its length before it."""
    data = _encoder.encode(message)
    return LENGTH.pack(len(data)) + data


def mask_socket(state: str) -> Path:
    """Where a state folder's collector masks. Raises CollectorError: see socket_path."""
    return socket_path(state, "mask.sock")
