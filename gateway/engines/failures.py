"""Versions that could not be served, so that they aren't tried again and again."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from exporters.models import ArtefactError, MissingArtefact
from gateway.engines.errors import DecodeFailed, EngineError

Fingerprint = tuple[tuple[str, int, int], ...]


TRIES = 3  # loads that broke off, in a row: by then that is no accident


class _Failure(msgspec.Struct, frozen=True):
    attempts: int
    until: float  # monotonic seconds; inf: not before the files change
    fingerprint: Fingerprint
    broke_off: int = 0  # how many loads in a row broke off: DecodeFailed
    harmed: int = 0  # how often it no longer answered as it should beside another


class Failures:
    """Backs off from `first` seconds, doubling, to `most`; a broken artefact is left alone until its files change."""

    def __init__(self, *, first: float, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first = first
        self._most = most
        self._clock = clock
        self._failed: dict[str, _Failure] = {}

    def not_loaded(self, version_id: str, folder: Path, error: ArtefactError | EngineError) -> float:
        """A load failed. Returns the seconds to wait, infinity where it is broken."""
        before = self._failed.get(version_id)
        broke_off = 1 + (before.broke_off if before else 0) if isinstance(error, DecodeFailed) else 0
        # An artefact that is missing may be on a disk that comes.
        again = error.retryable or isinstance(error, MissingArtefact) or 0 < broke_off < TRIES
        if not again:
            self.broken(version_id, folder)
            return math.inf
        wait = self.died(version_id, folder)
        self._failed[version_id] = msgspec.structs.replace(self._failed[version_id], broke_off=broke_off)
        return wait

    def broken(self, version_id: str, folder: Path) -> None:
        """Its files are not usable: wait until they change."""
        self._failed[version_id] = _Failure(0, math.inf, fingerprint(folder))

    def died(self, version_id: str, folder: Path) -> float:
        """Its process ended: wait a while. Returns the seconds."""
        before = self._failed.get(version_id)
        attempts = before.attempts + 1 if before else 1
        wait = min(self._first * 2.0 ** (attempts - 1), self._most)
        harmed = before.harmed if before else 0
        self._failed[version_id] = _Failure(attempts, self._clock() + wait, fingerprint(folder), harmed=harmed)
        return wait

    def harmed(self, version_id: str, folder: Path) -> float:
        """It no longer answers as it should beside another. Returns the seconds to wait, infinity where that has come
        TRIES times before it was well for a while."""
        before = self._failed.get(version_id)
        times = 1 + (before.harmed if before else 0)
        if times >= TRIES:
            self.broken(version_id, folder)
            return math.inf
        wait = self.died(version_id, folder)
        self._failed[version_id] = msgspec.structs.replace(self._failed[version_id], harmed=times)
        return wait

    def loaded(self, version_id: str) -> None:
        """A load went well, whatever comes of it."""
        if failure := self._failed.get(version_id):
            self._failed[version_id] = msgspec.structs.replace(failure, broke_off=0)

    def attempts(self, version_id: str) -> int:
        """How often in a row its process has ended, or it was not well otherwise."""
        failure = self._failed.get(version_id)
        return failure.attempts if failure is not None else 0

    def forget(self, version_id: str) -> None:
        """It is well."""
        self._failed.pop(version_id, None)

    def blocks(self, version_id: str, folder: Path) -> bool:
        """Whether it should not be tried now."""
        failure = self._failed.get(version_id)
        if failure is None or self._clock() >= failure.until:
            return False
        return fingerprint(folder) == failure.fingerprint


def fingerprint(folder: Path) -> Fingerprint:
    """Names, sizes and times of the files; empty where there is no folder, or it can't be looked into now."""
    found = []
    with suppress(OSError):  # not ours to read, or a share that went stale
        for file in sorted(folder.rglob("*")):
            with suppress(OSError):
                stat = file.stat()
                found.append((file.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns))
    return tuple(found)
