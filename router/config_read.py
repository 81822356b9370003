"""From a file's text to a configuration, with a line for each thing that is wrong."""

import re
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from router.config import Config
from router.errors import ConfigError

_SECRET = ("api_key", "password", "token")  # what was written there is not shown
_KIND = re.compile(r"^(literal|tuple|list|dict|function-[a-z]+)\[")  # of a choice, in pydantic's paths
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def parse(text: str, environ: Mapping[str, str], *, unset: bool = False) -> Config:
    """Read a configuration.

    `${NAME}` is taken from `environ`; inside an upstream that has a `stand_in` it may be unset, and everywhere with
    `unset`. Raises ConfigError with one line for each thing that is wrong, which names its key and says what would be
    right.
    """
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError("the file must be a mapping with the keys upstreams and routes")
    try:
        return Config.model_validate(_substitute(raw, environ, path="", optional=unset))
    except ValidationError as error:
        raise ConfigError("\n".join(complaints(error))) from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice: YAML would silently take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for n, key in enumerate(keys):
            if key.value in {other.value for other in keys[:n]}:
                line = key.start_mark.line + 1
                raise ConfigError(f"line {line}: {key.value} is given twice in one place; keep one of the two")
        return super().construct_mapping(node, deep)


UNKNOWN = "unknown key; check its spelling (`retort schema` lists the keys)"


def complaints(error: ValidationError, *, unknown: str = UNKNOWN) -> list[str]:
    """A line for each key that is wrong. Where a key takes one thing or another, what speaks of the kind that was not
    meant (a list's words of a text) is left out. `unknown`: what is said of a key that there isn't."""
    found: dict[str, list[Any]] = {}
    for e in error.errors():
        found.setdefault(".".join(str(part) for part in e["loc"] if not _KIND.search(str(part))), []).append(e)
    for key, wrong in found.items():
        within = any(other.startswith(f"{key}.") for other in found)
        meant = [e for e in wrong if not _other_kind(e) and not (within and _KIND.search(str(e["loc"][-1])))]
        found[key] = meant or ([] if within else wrong)
    return [
        f"{key}: {' - or: '.join(dict.fromkeys(_plain(e, unknown) for e in wrong))}"
        if key
        else _plain(wrong[0], unknown)
        for key, wrong in found.items()
        if wrong
    ]


def _other_kind(error: Any) -> bool:
    """Whether a text or a number was given where this complaint wants a list, or the other way round."""
    if isinstance(error["input"], list | dict):
        return bool(error["type"] == "literal_error")
    return error["type"] in ("tuple_type", "list_type", "dict_type", "model_type", "model_attributes_type")


def _plain(error: Any, unknown: str) -> str:
    if error["type"] == "extra_forbidden":
        return unknown
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in ("missing", "value_error") or error["loc"][-1] in _SECRET:
        return message
    return f"{message}; got {error['input']!r}"


def _substitute(value: Any, environ: Mapping[str, str], *, path: str, optional: bool = False) -> Any:
    if isinstance(value, dict):
        optional = optional or value.get("stand_in") is not None
        return {
            k: _substitute(v, environ, path=f"{path}.{k}" if path else str(k), optional=optional)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_substitute(v, environ, path=f"{path}.{i}", optional=optional) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environ and not optional:
            raise ConfigError(f"{path}: the environment has no {name}; export {name}=... or change the file")
        return environ.get(name, "")

    return _VARIABLE.sub(replace, value)
