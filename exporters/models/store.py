"""The artefact store: one folder a version, written atomically and never changed.

An artefact is complete or absent: files are written and synced in a staging folder on the same file system, the
manifest comes last, then the folder is renamed to its final place.
"""

import hashlib
import re
import shutil
from pathlib import Path

import msgspec

from exporters.models.errors import ArtefactError, CorruptArtefact, ForbiddenFile, MissingArtefact
from exporters.models.manifest import NAME, Manifest
from exporters.models.whole import sync, write_atomic

# Data only. A pickle (.bin, .pt, .pkl) or Python source runs code when it is loaded, so it never gets in.
ALLOWED = frozenset({".onnx", ".data", ".safetensors", ".json", ".jinja", ".txt", ".md", ".png", ".html"})

# How a page must begin: under this policy no browser runs a script of it, or loads anything.
INERT_HTML = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_STAGING = ".staging"


class Store:
    """Artefacts under `root`, by version id."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    def path(self, artefact_id: str) -> Path:
        """Where an artefact is, or would be. Raises ArtefactError for an id that is no plain name."""
        if not _ID.fullmatch(artefact_id):
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
        Raises ForbiddenFile, and ArtefactError where the folder holds no file.
        """
        target = self.path(manifest.id)
        if (target / NAME).exists():
            shutil.rmtree(folder)
            return self.verify(manifest.id)
        files = sorted(p for p in folder.rglob("*") if not p.is_dir() and p.name != NAME)
        if not files:
            raise ArtefactError(f"{folder} holds no file to publish")
        digests = {}
        for file in files:
            name = file.relative_to(folder).as_posix()
            _refuse(file, name)
            digests[name] = digest(file)
            sync(file)
        complete = msgspec.structs.replace(manifest, files=digests)
        write_atomic(folder / NAME, msgspec.json.format(msgspec.json.encode(complete)))
        if target.exists():  # a folder without a manifest is no artefact
            shutil.rmtree(target)
        folder.rename(target)
        sync(self._root)
        return complete

    def manifest(self, artefact_id: str) -> Manifest:
        """Read the manifest alone. Raises MissingArtefact, CorruptArtefact."""
        path = self.path(artefact_id) / NAME
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except FileNotFoundError:
            raise MissingArtefact(f"no artefact {artefact_id!r}: {path} does not exist") from None
        except msgspec.MsgspecError as error:
            raise CorruptArtefact(f"artefact {artefact_id!r}: {path} is no manifest: {error}") from error

    def verify(self, artefact_id: str) -> Manifest:
        """Read every file and compare it with the manifest.

        Raises MissingArtefact where a file is gone, CorruptArtefact (with both digests) where one has changed, and
        ForbiddenFile where the manifest names, or the folder holds, a file that may run code.
        """
        manifest = self.manifest(artefact_id)
        folder = self.path(artefact_id)
        if manifest.id != artefact_id:
            raise CorruptArtefact(f"artefact {artefact_id!r}: its manifest says that it is {manifest.id!r}")
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
            _refuse(file, name)
            if name not in manifest.files:
                raise CorruptArtefact(f"artefact {artefact_id!r}: {file} is not in its manifest; remove it")
        return manifest


def digest(file: Path) -> str:
    """The sha256 of a file, hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refuse(file: Path, name: str) -> None:
    if file.is_symlink():
        raise ForbiddenFile(f"{name}: a link may lead out of the artefact; copy the file")
    if file.suffix not in ALLOWED:
        raise ForbiddenFile(
            f"{name}: files of this kind are refused, because loading them may run code; "
            f"an artefact holds only {', '.join(sorted(ALLOWED))}"
        )
    if file.suffix == ".html":
        with file.open("rb") as stream:
            if stream.read(len(INERT_HTML)) != INERT_HTML.encode():
                raise ForbiddenFile(f"{name}: a page without the policy that keeps it from running scripts is refused")
