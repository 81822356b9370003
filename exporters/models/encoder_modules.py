"""What a folder says about how its encoder makes a vector: pooling, projections, norm, the longest text.

A folder of sentence-transformers lists its parts in modules.json (both the old and the new names of their types). Any
other Hugging Face folder of an encoder is read as mean pooling and the L2 norm.
"""

import json
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from exporters.models.errors import ExportFailed, MissingArtefact

Pooling = Literal["mean", "cls"]
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_NO_LIMIT = 1_000_000  # tokenizers write 1e30 where they know none


class Modules(msgspec.Struct, frozen=True, kw_only=True):
    """`transformer`: the encoder's own folder. `steps`: what follows the pooling, a folder for a projection and None
    for the norm. `most_tokens`: of a text, None where the folder doesn't say. `prefix`: put before every text."""

    transformer: Path
    pooling: Pooling = "mean"
    steps: tuple[Path | None, ...] = (None,)
    most_tokens: int | None = None
    prefix: str = ""


def read_modules(source: Path) -> Modules:
    """Raises MissingArtefact where there is no encoder, ExportFailed where a part is one that can't be exported."""
    if not (source / "modules.json").is_file():
        return Modules(transformer=_transformer(source), most_tokens=most_tokens(source))
    parts = [(str(m["type"]).rpartition(".")[2], source / m["path"]) for m in _read(source / "modules.json")]
    kinds = [kind for kind, _ in parts]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ExportFailed(f"{source}: its modules are {', '.join(kinds)}; they must begin with Transformer, Pooling")
    if unknown := sorted({*kinds[2:]} - {"Dense", "Normalize"}):
        raise ExportFailed(f"{source}: modules of the kind {', '.join(unknown)} can't be exported")
    transformer = _transformer(parts[0][1])
    return Modules(
        transformer=transformer,
        pooling=_pooling(parts[1][1] / "config.json"),
        steps=tuple(path if kind == "Dense" else None for kind, path in parts[2:]),
        most_tokens=most_tokens(transformer),
        prefix=_prefix(source / "config_sentence_transformers.json"),
    )


def projection(folder: Path) -> Any:
    """A Dense module of sentence-transformers, as torch module. Raises ExportFailed."""
    import torch  # noqa: PLC0415 - heavy: only an export pays for it
    from safetensors.torch import load_file  # noqa: PLC0415 - heavy

    told = _read(folder / "config.json")
    activation = str(told.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ("Tanh", "Identity", "ReLU", "GELU") or told.get("use_residual"):
        raise ExportFailed(f"{folder}: a projection with {activation}, or with a residual, can't be exported")
    if not (folder / "model.safetensors").is_file():
        raise ExportFailed(f"{folder} holds no model.safetensors; a pickle is never read")
    linear = torch.nn.Linear(told["in_features"], told["out_features"], bias=told.get("bias", True))
    weights = load_file(folder / "model.safetensors")
    linear.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in weights.items()})
    return torch.nn.Sequential(linear, getattr(torch.nn, activation)())


def most_tokens(folder: Path) -> int | None:
    """Of a text, as the folder has it; None where it doesn't say."""
    found = (
        _read(folder / "sentence_bert_config.json").get("max_seq_length"),
        _read(folder / "tokenizer_config.json").get("model_max_length"),
    )
    return next((int(most) for most in found if most is not None and most < _NO_LIMIT), None)


def _transformer(folder: Path) -> Path:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise MissingArtefact(f"{folder} is no encoder's Hugging Face folder: it holds no {name}")
    if _read(folder / "sentence_bert_config.json").get("do_lower_case"):
        raise ExportFailed(f"{folder}: do_lower_case is not supported; let the tokenizer itself lower the case")
    return folder


def _pooling(file: Path) -> Pooling:
    told = _read(file)
    modes = told.get("pooling_mode") or [name for key, name in _POOLINGS.items() if told.get(key)]
    named = [modes] if isinstance(modes, str) else list(modes)
    others = [key for key, on in told.items() if key.startswith("pooling_mode_") and on and key not in _POOLINGS]
    if len(named) != 1 or named[0] not in _POOLINGS.values() or others:
        raise ExportFailed(f"{file}: only the pooling mean or cls can be exported, not {', '.join([*named, *others])}")
    if not told.get("include_prompt", True):
        raise ExportFailed(f"{file}: pooling without the prompt (include_prompt: false) can't be exported")
    return cast(Pooling, named[0])


def _prefix(file: Path) -> str:
    told = _read(file)
    name = told.get("default_prompt_name")
    return str(told.get("prompts", {}).get(name, "")) if name else ""


def _read(file: Path) -> Any:
    """Of a JSON file; an empty object where there is none. Raises ExportFailed."""
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ExportFailed(f"{file} can't be read: {error}") from error
