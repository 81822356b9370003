"""The frames that reach the collector over its Unix socket.

A frame is two big-endian 32-bit lengths, a MessagePack header, and the raw bodies one after the other, unparsed:

    header length | body length | header | request | primary response | shadow responses ...

The collector answers each frame, once what it says is durable, with its 8-byte sequence number. A sender keeps a
frame until then and sends it again after a reconnection; ids make the repetition harmless.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from collector.errors import CollectorError
from router import private_folder
from router.decision import Arm, Decision
from router.evidence import RouteEvent

PREFIX = struct.Struct("!II")
ACK = struct.Struct("!Q")
MAX_HEADER = 1 << 20
MAX_BODY = 256 << 20
IMPORTED = "import-"  # what the ids of imported exchanges begin with
REPORTED = "fb_"  # and those of reports


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream call. `version`: of a student; `upstream`: of a teacher (upstream/model).

    `status`: HTTP, or None where no answer came. `error`: a short constant (connect, timeout, http_500, empty,
    stream_error, cut, cancelled), or None. Times in milliseconds since the call began. `body_bytes`: length of the
    response body in the frame. `deferred`: a student's finished answer that its confidence was too low for; the call
    stands among the exchange's shadows, and no error. `along`: it was lost along with another call of its version, as
    when their process ends: that is one failure, which the other tells.
    """

    arm: Arm
    version: str | None = None
    upstream: str | None = None
    status: int | None = None
    error: str | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    confidence: float | None = None
    body_bytes: int = 0
    deferred: bool = False
    along: bool = False


_ABOUT_THE_REQUEST = (400, 413, 422)


def refused_by_both(student: int | None, teacher: int | None) -> bool:
    """Whether both arms' statuses say that the request itself is wrong: then the student did not fail."""
    return student in _ABOUT_THE_REQUEST and teacher in _ABOUT_THE_REQUEST


class Exchange(msgspec.Struct, frozen=True, kw_only=True, tag="exchange"):
    """A finished exchange with a client.

    `served` is the call whose answer the client got; `failed` are attempts before it (no body kept); `shadows` ran
    beside it. `total_ms` and `ttft_ms` are what the client saw, fallbacks included. `capture`: whether its texts may
    be kept (rate and consent); observations are made either way. `consent`: why they may. `subject`: whose data it is,
    as the client's header named it. `imported`: by its name, the format of another system's log that the exchange was
    read from: it is kept, and is evidence of nothing, since nobody was served here.
    """

    id: str
    at: float
    path: str
    decision: Decision
    cluster: str
    stream: bool
    capture: bool
    consent: str = ""
    subject: str | None = None
    request_bytes: int
    served: Call
    failed: tuple[Call, ...] = ()
    shadows: tuple[Call, ...] = ()
    ttft_ms: float | None = None
    total_ms: float
    imported: str = ""


class Happened(msgspec.Struct, frozen=True, kw_only=True, tag="happened"):
    """An event for the evidence log, from an engine, a worker, the promoter, the retrainer or the command line."""

    event: RouteEvent


class Feedback(msgspec.Struct, frozen=True, kw_only=True, tag="feedback"):
    """What a client reports of an exchange, by its request id: an outcome in [0, 1], and the right answer's text (the
    frame's body), where either is known. `capture`: whether that text may be kept (rate and consent).
    """

    id: str
    at: float
    route: str
    request_id: str
    outcome: float | None = None
    truth_bytes: int = 0
    capture: bool = False


class Reported(Feedback, frozen=True, kw_only=True, tag="feedback"):
    """A report as it stands in the log. `answer`: the right answer, scrubbed (a collector.record.RightAnswer, encoded);
    who reads the outcomes alone passes it over as unknown."""

    answer: bytes = b""


Header = Exchange | Happened | Feedback


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """What is on the wire: the sender's sequence number (acknowledged) and the header."""

    sequence: int
    header: Header


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Envelope] = msgspec.msgpack.Decoder(Envelope)


def pack(sequence: int, header: Header, *bodies: bytes) -> list[bytes]:
    """The pieces of a frame, in order; bodies are not copied."""
    head = _encoder.encode(Envelope(sequence, header))
    return [PREFIX.pack(len(head), sum(map(len, bodies))), head, *bodies]


def unpack(head: bytes) -> Envelope:
    """Decode a header. Raises msgspec.ValidationError."""
    return _decoder.decode(head)


def split(frame: bytes) -> tuple[Header, bytes]:
    """A whole frame's header, and its bodies. Raises msgspec.MsgspecError."""
    size, _ = PREFIX.unpack_from(frame)
    return unpack(frame[PREFIX.size : PREFIX.size + size]).header, frame[PREFIX.size + size :]


def texts_of(exchange: Exchange, body: bytes) -> list[bytes]:
    """A body's pieces: the request, the served answer and the shadows' answers."""
    pieces, at = [], 0
    for size in (exchange.request_bytes, exchange.served.body_bytes, *(c.body_bytes for c in exchange.shadows)):
        pieces.append(body[at : at + size])
        at += size
    return pieces


def header_id(header: Header) -> str:
    """What makes a repetition known: an event's own id, or the exchange's."""
    return header.event.id if isinstance(header, Happened) else header.id


def socket_path(state: str, name: str = "collector.sock") -> Path:
    """Where the collector of a state folder listens. A Unix socket's path holds about 100 bytes at most; for a longer
    one it is in a folder of this user alone, inside the temporary folder, named by a digest of the long path.
    `name`: of which of its sockets.

    Raises CollectorError where somebody else has taken that folder: whoever listens there would get unscrubbed texts.
    """
    path = Path(state).absolute() / "run" / name
    if len(bytes(path)) <= 100:
        return path
    digest = hashlib.sha256(bytes(path)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"retort-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise CollectorError(f"{folder} must be a folder that this user alone can use; choose a shorter state: path")
    return folder / path.name


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold a socket's place while inside, free of what a killed process left there. Raises CollectorError where another
    process holds it, OSError."""
    private_folder(path.parent)
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CollectorError(
                f"a collector already listens at {path}, or is about to; stop it, or use another state folder"
            ) from None
        path.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)
