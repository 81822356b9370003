"""The artefact store: one folder a version, written atomically and never changed.

    ROOT/ID/            an artefact's files and its manifest
    ROOT/blobs/SHA256   the same files by their content: what several artefacts hold is on the disk once

An artefact is complete or absent: files are written and synced in a staging folder on the same file system, the
manifest comes last, then the folder is renamed to its final place. With an object store ROOT is the copy on this
machine: what is added goes there too, and what isn't here is fetched.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from exporters.models.errors import ArtefactError, CorruptArtefact, MissingArtefact
from exporters.models.harmless import refuse, refuse_name
from exporters.models.manifest import NAME, Manifest
from exporters.models.whole import alone, sync, take, write_atomic

if TYPE_CHECKING:  # who serves needs neither
    from exporters.models.remote import Remote
    from exporters.models.signing import Signing

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_STAGING, _BLOBS = ".staging", "blobs"
_NO_LIMIT = 1 << 62
STAGED_SECONDS = 86_400.0  # after which what is staged can't be on its way any more


class Store:
    """Artefacts under `root`, by version id. `most_bytes`: of one artefact."""

    def __init__(
        self,
        root: str | Path,
        *,
        remote: "Remote | None" = None,
        signing: "Signing | None" = None,
        most_bytes: int = _NO_LIMIT,
    ) -> None:
        self._root, self._remote = Path(root), remote
        self._signing, self._most = signing, most_bytes

    def path(self, artefact_id: str) -> Path:
        """Where an artefact is on this machine, or would be. Raises ArtefactError for an id that is no plain name."""
        if not _ID.fullmatch(artefact_id) or artefact_id == _BLOBS:
            raise ArtefactError(f"{artefact_id!r} is no artefact id; ids hold letters, digits, '.', '_' and '-'")
        return self._root / artefact_id

    def staging(self, artefact_id: str) -> Path:
        """An empty folder to write the artefact's files into; what an earlier, killed attempt left there is gone."""
        self.path(artefact_id)
        folder = self._root / _STAGING / artefact_id
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return folder

    def add(self, folder: Path, manifest: Manifest) -> Manifest:
        """Make a staged folder the artefact `manifest.id`; returns the manifest with the files' digests.

        An artefact of this id that is already there and whole stays as it is (a repeated publication is harmless).
        Raises ForbiddenFile, and ArtefactError where the folder holds no file or too much, or can't be signed.
        """
        target = self.path(manifest.id)
        if (target / NAME).exists():
            shutil.rmtree(folder)
            known = self._whole(manifest.id)
        else:
            digests, sizes = self._read(folder)
            known = msgspec.structs.replace(manifest, files=digests, sizes=sizes)
            known = known if self._signing is None else self._signing.signed(known)
            with self._alone():
                for name, found in digests.items():
                    _share(folder / name, self._root / _BLOBS / found)
                self._place(folder, known.id, msgspec.json.format(msgspec.json.encode(known)))
        if self._remote is not None:
            self._remote.put(target, known.id, known.files, (target / NAME).read_bytes())
        return known

    def put(self, folder: Path, manifest: Manifest) -> Manifest:
        """As `add`, of a copy of `folder`, which goes where that fails: a full disk would stay full."""
        staging = self.staging(manifest.id)
        try:
            shutil.copytree(folder, staging, dirs_exist_ok=True)
            return self.add(staging, manifest)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def manifest(self, artefact_id: str) -> Manifest:
        """Read the manifest alone. Raises MissingArtefact, CorruptArtefact, ArtefactsAway."""
        return self._checked(artefact_id, self._stored(artefact_id))

    def _stored(self, artefact_id: str) -> bytes:
        """The manifest as it is stored: another version of Retort may have written more into it."""
        path = self.path(artefact_id) / NAME
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if self._remote is None:
                raise MissingArtefact(f"no artefact {artefact_id!r}: {path} does not exist") from None
            return self._remote.manifest(artefact_id)

    def _checked(self, artefact_id: str, data: bytes) -> Manifest:
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except msgspec.MsgspecError as error:
            path = self.path(artefact_id) / NAME
            raise CorruptArtefact(f"artefact {artefact_id!r}: {path} is no manifest: {error}") from error
        if manifest.id != artefact_id:
            raise CorruptArtefact(f"artefact {artefact_id!r}: its manifest says that it is {manifest.id!r}")
        if self._signing is not None:
            self._signing.check(artefact_id, data)
        return manifest

    def verify(self, artefact_id: str, unwanted: Callable[[], bool] = lambda: False) -> Manifest:
        """Have it on this machine, read every file and compare it with the manifest. A fetch ends with ArtefactsAway
        once it is `unwanted()`.

        Raises MissingArtefact where a file is gone, CorruptArtefact (with both digests) where one has changed or the
        signature isn't right, ForbiddenFile where the manifest names, or the folder holds, a file that may run code,
        ArtefactsAway.
        """
        if self._remote is None:
            return self._whole(artefact_id)
        if (self.path(artefact_id) / NAME).exists():
            with suppress(CorruptArtefact, MissingArtefact):
                return self._whole(artefact_id)
            shutil.rmtree(self.path(artefact_id))  # this machine's copy alone
        self._fetch(artefact_id, unwanted)
        return self._whole(artefact_id)

    def local(self, artefact_id: str) -> Path:
        """The folder of an artefact that has been verified, fetched where it wasn't here. Raises as `verify`."""
        if not (self.path(artefact_id) / NAME).exists():
            self.verify(artefact_id)
        return self.path(artefact_id)

    def ids(self) -> Iterator[str]:
        """Of all artefacts, here and in the object store. Raises ArtefactsAway."""
        here = {path.parent.name for path in self._root.glob(f"*/{NAME}")}
        return iter(sorted(here | set(self._remote.manifests() if self._remote is not None else ())))

    def size(self, artefact_id: str) -> int:
        """Bytes of its files on this machine."""
        return sum(file.stat().st_size for file in self.path(artefact_id).rglob("*") if file.is_file())

    def remove(self, artefact_id: str) -> None:
        """Remove an artefact, manifest first. Raises ArtefactsAway."""
        if self._remote is not None:
            self._remote.remove(artefact_id)
        folder = self.path(artefact_id)
        (folder / NAME).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove the files that no artefact holds any more, and what was staged by who was killed. Raises
        ArtefactsAway."""
        with self._alone():
            for left in (self._root / _STAGING).glob("*"):
                with suppress(FileNotFoundError):  # it has been placed meanwhile
                    if time.time() - left.stat().st_mtime > STAGED_SECONDS:
                        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
            for blob in (self._root / _BLOBS).glob("*"):
                if blob.stat().st_nlink == 1:
                    blob.unlink()
        if self._remote is not None:
            remote = self._remote
            remote.sweep(lambda: {found for name in remote.manifests() for found in _named(remote.manifest(name))})

    def _alone(self) -> AbstractContextManager[None]:
        """Nobody else places or sweeps meanwhile."""
        (self._root / _BLOBS).mkdir(parents=True, exist_ok=True)
        return alone(self._root / _BLOBS)

    def _read(self, folder: Path) -> tuple[dict[str, str], dict[str, int]]:
        """The digests and sizes of a staged folder's files, which are synced. Raises ForbiddenFile, ArtefactError."""
        files = sorted(p for p in folder.rglob("*") if not p.is_dir() and p.name != NAME)
        if not files:
            raise ArtefactError(f"{folder} holds no file to publish")
        named = {file.relative_to(folder).as_posix(): file for file in files}
        sizes = {name: file.lstat().st_size for name, file in named.items()}
        if sum(sizes.values()) > self._most:
            raise ArtefactError(
                f"{folder} holds {sum(sizes.values()):,} bytes, more than artefact_policy.max_gb allows"
            )
        for name, file in named.items():
            refuse(file, name)
            sync(file)
        return {name: digest(file) for name, file in named.items()}, sizes

    def _place(self, folder: Path, artefact_id: str, manifest: bytes) -> None:
        """Move a folder to where it belongs, as an artefact."""
        write_atomic(folder / NAME, manifest)
        target = self.path(artefact_id)
        if target.exists():  # a folder without a manifest is no artefact
            shutil.rmtree(target)
        folder.rename(target)
        sync(self._root)

    def _fetch(self, artefact_id: str, unwanted: Callable[[], bool]) -> None:
        assert self._remote is not None  # noqa: S101 - its only caller has asked
        with alone(self.path(artefact_id)):  # others are placed and fetched meanwhile
            if (self.path(artefact_id) / NAME).exists():  # another process has fetched it
                return
            data = self._stored(artefact_id)
            folder, room = self.staging(artefact_id), self._most
            coming = folder.with_name(f"{folder.name}.blob")
            try:
                for name, found in self._checked(artefact_id, data).files.items():
                    refuse_name(name)
                    file = folder / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    if not self._taken(found, file):  # by another artefact it is here already
                        self._remote.get(found, coming, most=room, unwanted=unwanted)
                        self._taken(found, file, coming)
                    room -= file.stat().st_size
                with self._alone():
                    self._place(folder, artefact_id, data)
            finally:
                coming.unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)  # but for the blobs: they need not come again

    def _taken(self, found: str, file: Path, coming: Path | None = None) -> bool:
        """Whether a blob is here, or has come as `coming`: `file` is it now."""
        blob = self._root / _BLOBS / _hex(found)
        with self._alone():
            if not (blob.is_file() and digest(blob) == found):
                blob.unlink(missing_ok=True)
                if coming is None:
                    return False
                coming.chmod(0o444)
                coming.replace(blob)
            take(blob, file)
            return True

    def _whole(self, artefact_id: str) -> Manifest:
        manifest = self.manifest(artefact_id)
        folder = self.path(artefact_id)
        for name, expected in sorted(manifest.files.items()):
            file = folder / name
            if not file.is_file():
                raise MissingArtefact(f"artefact {artefact_id!r}: {file} is missing")
            if (found := digest(file)) != expected:
                raise CorruptArtefact(
                    f"artefact {artefact_id!r}: {file} has sha256 {found} ({file.stat().st_size} bytes), "
                    f"the manifest says {expected}; copy or train it again"
                )
        for file in folder.rglob("*"):
            name = file.relative_to(folder).as_posix()
            if file.is_dir() or name == NAME:
                continue
            refuse(file, name)
            if name not in manifest.files:
                raise CorruptArtefact(f"artefact {artefact_id!r}: {file} is not in its manifest; remove it")
        return manifest


def digest(file: Path) -> str:
    """The sha256 of a file, hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _named(data: bytes) -> Iterable[str]:
    """The digests of a manifest's files. Raises CorruptArtefact: what can't be read may need any file."""
    try:
        return msgspec.json.decode(data, type=Manifest).files.values()
    except msgspec.MsgspecError as error:
        raise CorruptArtefact(f"the object store holds what is no manifest: {error}") from error


def _hex(found: str) -> str:
    """A digest, which a foreign manifest may have anything in the place of."""
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise CorruptArtefact(f"{found!r} is no sha256")
    return found


def _share(file: Path, blob: Path) -> None:
    """Let a file and its blob be the same bytes on the disk, which nobody writes to any more; where the file system has
    no links, the file stays alone."""
    if blob.exists() and digest(blob) != blob.name:  # somebody has changed it
        blob.unlink()
    file.chmod(0o444)
    with suppress(OSError):
        if not blob.exists():
            os.link(file, blob)
        elif not file.samefile(blob):
            linked = file.with_name(f".{file.name}.link")
            os.link(blob, linked)
            linked.replace(file)
