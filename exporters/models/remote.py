"""Artefacts in an object store, by fsspec: S3 and what speaks like it, Google's, Azure's, or a mounted folder.

PREFIX/blobs/SHA256           a file's bytes, once however many artefacts hold it
PREFIX/manifests/ID.json      last; without it there is no artefact
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exporters.models.errors import ArtefactError, ArtefactsAway, ArtefactTooLarge, CorruptArtefact, MissingArtefact

PIECE = 1 << 22  # bytes
GRACE_SECONDS = 86_400.0


class Remote:
    """One object store. `url`: as s3://BUCKET/PREFIX. Raises ArtefactError where no library speaks its scheme."""

    def __init__(self, url: str) -> None:
        import fsspec  # noqa: PLC0415 - only who has an object store needs it

        try:
            self._files, self._prefix = fsspec.core.url_to_fs(url, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            raise ArtefactError(f"artefacts: {url}: {error}") from error
        self._url = url.rstrip("/")

    def manifest(self, artefact_id: str) -> bytes:
        """Raises MissingArtefact, ArtefactsAway."""
        with self._asked(f"no artefact {artefact_id!r} in {self._url}"):
            self._files.invalidate_cache()
            return bytes(self._files.cat_file(self._manifest(artefact_id)))

    def manifests(self) -> list[str]:
        """The ids of all artefacts. Raises ArtefactsAway."""
        return [Path(name).stem for name in self._listed("manifests") if name.endswith(".json")]

    def put(self, folder: Path, artefact_id: str, digests: dict[str, str], manifest: bytes) -> None:
        """Every file that isn't there, then the manifest. Raises ArtefactsAway."""
        with self._asked(""):
            for parent in ("blobs", "manifests"):
                self._files.makedirs(f"{self._prefix}/{parent}", exist_ok=True)
            for name, digest in digests.items():
                blob, file = self._blob(digest), folder / name
                if not self._has(blob, file.stat().st_size):
                    self._files.put_file(str(file), blob)
            self._files.pipe_file(self._manifest(artefact_id), manifest)

    def get(self, digest: str, target: Path, *, most: int, unwanted: Callable[[], bool]) -> None:
        """Write one file, of at most `most` bytes; it appears whole. Raises MissingArtefact, CorruptArtefact,
        ArtefactTooLarge, ArtefactsAway (also once it is `unwanted()`)."""
        part = target.with_name(f"{target.name}.part")
        try:
            stored = self._size(digest)
            if stored > most:
                raise ArtefactTooLarge(f"with {digest} the artefact has more bytes than artefact_policy.max_gb allows")
            found, copied = self._copied(digest, part, unwanted)
            if found != digest and copied < stored:
                raise ArtefactsAway(f"of {self._url}/blobs/{digest} only {copied:,} of {stored:,} bytes came")
            if found != digest:
                raise CorruptArtefact(f"{self._url}/blobs/{digest} has sha256 {found}; train it again")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)  # a full disk would stay full

    def _copied(self, digest: str, part: Path, unwanted: Callable[[], bool]) -> tuple[str, int]:
        """Copy a file's bytes; returns their sha256 and how many they are."""
        whole, size = hashlib.sha256(), 0
        with (
            self._asked(f"{self._url}/blobs/{digest} is missing"),
            self._files.open(self._blob(digest), "rb") as source,
            part.open("wb", buffering=0) as file,
        ):
            while piece := source.read(PIECE):
                if unwanted():
                    raise ArtefactsAway(f"{self._url}/blobs/{digest} was not fetched to its end: nobody waits for it")
                size += len(piece)
                whole.update(piece)
                with _writing(part):
                    left = memoryview(piece)
                    while left:
                        left = left[file.write(left) :]
            with _writing(part):
                os.fsync(file.fileno())
        return whole.hexdigest(), size

    def _size(self, digest: str) -> int:
        with self._asked(f"{self._url}/blobs/{digest} is missing"):
            self._files.invalidate_cache()
            return int(self._files.info(self._blob(digest))["size"])

    def remove(self, artefact_id: str) -> None:
        """Its manifest; its files go with `sweep`. Raises ArtefactsAway."""
        with self._asked(""), suppress(FileNotFoundError):
            self._files.rm_file(self._manifest(artefact_id))

    def sweep(self, used: Callable[[], set[str]]) -> None:
        """Remove the files that no manifest names, but for new ones, whose manifest may be on its way. `used`: asked
        after the files were listed. Raises ArtefactsAway."""
        old = [name for name in self._listed("blobs") if self._age(name) > GRACE_SECONDS]
        kept = used()
        with self._asked(""):
            for name in old:
                if Path(name).name not in kept and self._age(name) > GRACE_SECONDS:  # nobody has sent it again since
                    self._files.rm_file(name)

    def _listed(self, folder: str) -> list[str]:
        """What is in a folder; nothing where there is none."""
        with self._asked(""):
            self._files.invalidate_cache()
            try:
                return list(self._files.ls(f"{self._prefix}/{folder}", detail=False))
            except FileNotFoundError:
                return []

    def _has(self, blob: str, size: int) -> bool:
        """Whether a file is there, and so new that no sweep takes it before its manifest comes."""
        try:
            return int(self._files.info(blob)["size"]) == size and self._age(blob) < GRACE_SECONDS / 2
        except FileNotFoundError:
            return False

    def _age(self, name: str) -> float:
        with self._asked(""):
            self._files.invalidate_cache()
            return time.time() - float(self._files.modified(name).timestamp())

    def _blob(self, digest: str) -> str:
        return f"{self._prefix}/blobs/{digest}"

    def _manifest(self, artefact_id: str) -> str:
        return f"{self._prefix}/manifests/{artefact_id}.json"

    @contextmanager
    def _asked(self, missing: str) -> Iterator[None]:
        """Whatever a client raises, as one of ours."""
        try:
            yield
        except ArtefactError:
            raise
        except FileNotFoundError as error:
            raise MissingArtefact(missing or f"{self._url}: {error}") from error
        except Exception as error:  # each client has its own
            raise ArtefactsAway(f"{self._url} can't be used: {str(error) or type(error).__name__}") from error


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    """A disk that fails is this machine's: the store is not to blame, but neither is the artefact."""
    try:
        yield
    except OSError as error:
        raise ArtefactsAway(f"{part} can't be written: {error.strerror}") from error
