"""The fields of a request's body, checked one by one."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.engines.errors import InvalidRequest


def body(data: bytes, *, holds: str) -> dict[str, Any]:
    """The JSON object. `holds`: what it must have, in words. Raises InvalidRequest."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"The body must be a JSON object with {holds}.")
    return found


def integer(data: Mapping[str, Any], name: str, *, least: int, most: int | None = None) -> int | None:
    """None where it isn't given. Raises InvalidRequest."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise bad(name, f"must be a whole number {limit}")
    return value


def number(data: Mapping[str, Any], name: str, *, most: float) -> float | None:
    """From 0 on; None where it isn't given. Raises InvalidRequest."""
    value = data.get(name)
    if value is None:
        return None
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not math.isfinite(value) or not 0.0 <= value <= most:
        raise bad(name, f"must be a number from 0 to {most:g}")
    return float(value)


def boolean(data: Mapping[str, Any], name: str) -> bool:
    """False where it isn't given. Raises InvalidRequest."""
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad(name, "must be true or false")
    return bool(value)


def truncates(data: Mapping[str, Any], *, default: str) -> bool:
    """Whether what is too long is cut at its end (truncate: END) or refused (NONE). Raises InvalidRequest."""
    value = data.get("truncate")
    if value is not None and value not in ("END", "NONE"):
        raise bad("truncate", 'must be "END" (what is too long is cut) or "NONE" (it is refused)')
    return (value or default) == "END"


def bad(name: str, message: str) -> InvalidRequest:
    """A field that is wrong."""
    return InvalidRequest(f"{name} {message}.", param=name)
