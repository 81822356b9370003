"""Frames on disk until they are acknowledged, encrypted: a process that is killed loses none, its successor sends them.

Each process has a folder of its own, which it holds locked while it lives:

    lock, acked (8 bytes: the last acknowledged sequence number), 0000000001, 0000000002, ... (segments)

What is written has left the process, and survives its death; not a power cut, as nothing waits for the disk.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from collector.orphan import ACKED, Orphan
from collector.spool_records import BEGUN, FRAME, SALT_BYTES, record_size, seal, segment_cipher, unseal
from router import SpoolSettings, private_folder

SEGMENT_BYTES = 8 << 20


class Place(msgspec.Struct, frozen=True):
    """Where a frame stands: its segment's number, and its record's first byte and length there."""

    segment: int
    start: int
    length: int


class _Segment(msgspec.Struct):
    """`last`: the last sequence number in it. `begun`: sequence numbers of exchanges begun here that are not over."""

    number: int
    handle: int
    cipher: AESGCM
    size: int = SALT_BYTES
    last: int = 0
    begun: set[int] = msgspec.field(default_factory=set)


class Spool:
    """One process's folder below `folder`. `key`: 32 secret bytes. `max_bytes`: on disk, of this process.

    Raises OSError where the folder can't be made.
    """

    def __init__(self, folder: Path, key: bytes, *, max_bytes: int) -> None:
        self._key = key
        self._max_bytes = max_bytes
        private_folder(folder)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        fresh = folder / f".{name}"  # which nobody takes for an orphan before it is locked
        fresh.mkdir(mode=0o700)
        self._lock = _locked(fresh)
        self.folder = fresh.rename(folder / name)
        self._acked = os.open(self.folder / "acked", os.O_RDWR | os.O_CREAT, 0o600)
        with contextlib.suppress(OSError):  # its room is taken now, while there is some
            os.pwrite(self._acked, ACKED.pack(0), 0)
        self._segments: deque[_Segment] = deque()
        self._count = 0
        self._bytes = 0

    def keep(self, sequence: int, pieces: Sequence[bytes], *, begun: bool = False) -> Place | None:
        """Write a frame; None where there is no room. `begun`: of an exchange that is answered, but not over: to be
        sent by a successor only, where none with the same number of `over` followed. Raises OSError."""
        frame = b"".join(pieces)
        if not self.has_room(len(frame)):
            return None
        size = record_size(len(frame))
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.size + size > SEGMENT_BYTES:
            segment = self._new()
        place = Place(segment.number, segment.size, size)
        data = seal(segment.cipher, BEGUN if begun else FRAME, sequence, frame, start=segment.size)
        if os.write(segment.handle, data) != size:
            self._bytes += SEGMENT_BYTES - segment.size
            segment.size = SEGMENT_BYTES  # a nonce is never used twice: what follows goes into another segment
            os.ftruncate(segment.handle, place.start)  # or a successor would take what others follow for damaged
            raise OSError(f"{self.folder}: a record was written in part")
        segment.size += size
        self._bytes += size
        if begun:
            segment.begun.add(sequence)
        else:
            segment.last = sequence
        return place

    @property
    def crowded(self) -> bool:
        """Whether half of the room is taken."""
        return 2 * self._bytes > self._max_bytes

    def has_room(self, size: int) -> bool:
        """Whether a frame of so many bytes can be kept."""
        return self._bytes + record_size(size) <= self._max_bytes

    def read(self, place: Place) -> bytes:
        """The frame that stands there. Raises OSError, SpoolError."""
        segment = next(s for s in self._segments if s.number == place.segment)
        return unseal(segment.cipher, os.pread(segment.handle, place.length, place.start), start=place.start)[2]

    def over(self, begun: int) -> None:
        """What began with this sequence number is written whole."""
        for segment in self._segments:
            segment.begun.discard(begun)

    def acknowledged(self, sequence: int) -> None:
        """All up to this frame are with the collector. Raises OSError where that can't be written down; their segments
        are removed before, as a full disk has no room for it otherwise."""
        self._remove(sequence)
        os.pwrite(self._acked, ACKED.pack(sequence), 0)

    def orphans(self) -> list[Orphan]:
        """The folders beside this one whose processes are gone. Raises OSError."""
        found = []
        for path in sorted(self.folder.parent.glob("[!.]*")):
            with contextlib.suppress(BlockingIOError, FileNotFoundError, NotADirectoryError):
                found.append(Orphan(path, _locked(path), self._key))
        return found

    def close(self, *, empty: bool) -> None:
        """Let go of the folder; remove it where nothing is left to send."""
        for segment in self._segments:
            os.close(segment.handle)
        self._segments.clear()
        os.close(self._acked)
        if empty:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def _remove(self, sequence: int) -> None:
        while self._segments and self._segments[0].last <= sequence and not self._segments[0].begun:
            if len(self._segments) == 1 and self._segments[0].size < SEGMENT_BYTES // 2:
                return  # the one that is being written is used on
            segment = self._segments.popleft()
            os.close(segment.handle)
            (self.folder / f"{segment.number:010d}").unlink()
            self._bytes -= segment.size - SALT_BYTES

    def _new(self) -> _Segment:
        number = self._count + 1
        path = self.folder / f"{number:010d}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        salt = secrets.token_bytes(SALT_BYTES)
        try:
            if os.write(handle, salt) != SALT_BYTES:
                raise OSError(f"{path}: a salt was written in part")
        except OSError:
            os.close(handle)
            path.unlink()
            raise
        self._count = number
        segment = _Segment(number, handle, segment_cipher(self._key, salt))
        self._segments.append(segment)
        return segment


def open_spool(state: str, settings: SpoolSettings) -> Spool:
    """A spool below a state folder. Raises OSError."""
    return Spool(Path(state) / "spool", bytes.fromhex(settings.key), max_bytes=settings.max_mb << 20)


def _locked(folder: Path) -> int:
    """A handle on the folder's lock. Raises BlockingIOError while its process lives."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    return handle
