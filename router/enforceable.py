"""Whether an engine can hold an answer to a JSON Schema, token by token. Pure; what it lets through the engine's own
library takes, too, but for patterns and references that are wrong in themselves."""

from typing import Any

DEEPEST = 40
_PLAIN = frozenset(
    (
        "$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly",
        "writeOnly", "type", "enum", "const", "required", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
        "minLength", "maxLength", "minItems", "maxItems", "$ref",
    )
)  # fmt: skip
_INNER = frozenset(("additionalProperties", "items"))
_LISTS = frozenset(("anyOf", "allOf", "prefixItems"))
_NAMED = frozenset(("properties", "$defs", "definitions"))
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"))


def enforceable(schema: Any, depth: int = 0) -> bool:
    """Whether all that a schema says is enforced."""
    if isinstance(schema, bool):
        return depth > 0
    if not isinstance(schema, dict) or depth > DEEPEST:
        return False
    return all(_known(key, value, depth + 1) for key, value in schema.items())


def _known(key: str, value: Any, depth: int) -> bool:
    if key in _PLAIN:
        return key != "$ref" or (isinstance(value, str) and value.startswith("#"))
    if key in _INNER:
        return enforceable(value, depth)
    if key in _LISTS:
        return isinstance(value, list) and all(enforceable(one, depth) for one in value)
    if key in _NAMED:
        return isinstance(value, dict) and all(enforceable(one, depth) for one in value.values())
    if key == "pattern":
        return isinstance(value, str) and "(?" not in value and not any(f"\\{c}" in value for c in "123456789bB")
    return key == "format" and value in _FORMATS
