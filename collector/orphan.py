"""What a process that is gone left in its folder of the spool."""

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from collector.errors import SpoolError
from collector.frames import Header, header_id, split
from collector.spool_records import BEGUN, records

ACKED = struct.Struct("!Q")


class Left(msgspec.Struct, frozen=True):
    """A frame to send. `sequence`: in its process's order; 0 where it is of an exchange that was not over."""

    sequence: int
    header: Header
    bodies: bytes


class Orphan:
    """The folder of a process that is gone, locked. Close it in any case."""

    def __init__(self, folder: Path, lock: int, key: bytes) -> None:
        self.folder = folder
        self._lock = lock
        self._key = key
        self._damaged: list[Path] = []

    def frames(self) -> Iterator[Left]:
        """Its frames that are not acknowledged, in order; then those of exchanges that were answered, but not over.
        What stands in a segment from the first record on that can't be read is passed over.

        Raises SpoolError where no record can be read at all, as with another key; OSError.
        """
        acked = self.folder / "acked"
        data = acked.read_bytes() if acked.exists() else b""
        last = ACKED.unpack(data)[0] if len(data) == ACKED.size else 0
        over: set[str] = set()
        begun: dict[str, Left] = {}
        for kind, left in self._records():
            name = header_id(left.header)
            if kind == BEGUN:
                begun[name] = msgspec.structs.replace(left, sequence=0)
                continue
            over.add(name)
            if left.sequence > last:
                yield left
        yield from (left for name, left in begun.items() if name not in over)

    def acknowledged(self, sequence: int) -> None:
        """All up to this frame are with the collector, so nobody needs to send them again. Raises OSError."""
        handle = os.open(self.folder / "acked", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(handle, ACKED.pack(sequence), 0)
        finally:
            os.close(handle)

    def remove(self) -> list[Path]:
        """All that can be read has been sent on. Returns the files to which segments were moved that could not be read
        to their end: they stand beside the folder, and nothing looks at them again. Raises OSError."""
        kept = [path.rename(self.folder.with_name(f"damaged-{path.parent.name}-{path.name}")) for path in self._damaged]
        shutil.rmtree(self.folder, ignore_errors=True)
        return kept

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    def _records(self) -> Iterator[tuple[int, Left]]:
        self._damaged = []
        found = False
        segments = sorted(self.folder.glob("[0-9]*"))
        for path in segments:
            try:
                for kind, sequence, frame in records(path, self._key, last=path == segments[-1]):
                    found = True
                    yield kind, Left(sequence, *split(frame))
            except (SpoolError, msgspec.MsgspecError):
                self._damaged.append(path)
        if self._damaged and not found:
            raise SpoolError("none of its frames can be read: they were written with another key, or changed")
