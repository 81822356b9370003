"""Whether a JSON value keeps to the schema that the request declared.

A client wrote the schema, so nothing in it may reach out or run for ever: references are looked up in the schema alone,
and its regular expressions (`pattern`, `patternProperties`) are not run, since one of a few characters can keep Python
busy for years. Beside `patternProperties`, what it says of further properties isn't judged either.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any


def keeps_to(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether `value` is valid. A schema that is itself wrong, or that refers to another one, forbids nothing."""
    from referencing.exceptions import Unresolvable  # noqa: PLC0415 - heavy: only routes with schemas pay for it

    validator = _validator(json.dumps(schema, sort_keys=True))
    if validator is None:
        return True
    try:
        return bool(validator.is_valid(value))
    except (Unresolvable, RecursionError, ArithmeticError):  # also a multipleOf of a number beyond any float
        return True


@lru_cache(maxsize=64)  # a route's clients use few schemas, and reading one costs milliseconds
def _validator(text: str) -> Any:
    import jsonschema  # noqa: PLC0415 - heavy
    from referencing import Registry  # noqa: PLC0415 - heavy

    schema = _without_patterns(json.loads(text))
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except (jsonschema.SchemaError, RecursionError):
        return None
    return kind(schema, registry=Registry())


def _without_patterns(schema: Any, *, names: bool = False) -> Any:
    """`names`: the keys of this object are names that the schema's writer chose, `pattern` too."""
    if isinstance(schema, list):
        return [_without_patterns(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {key: _without_patterns(inner) for key, inner in schema.items()}
    left_out = {"pattern"} | (_BY_PATTERN if "patternProperties" in schema else set())
    return {
        key: inner if key in ("enum", "const") else _without_patterns(inner, names=key in _NAMED)
        for key, inner in schema.items()
        if key not in left_out
    }


_BY_PATTERN = {"patternProperties", "additionalProperties", "unevaluatedProperties"}
_NAMED = ("properties", "$defs", "definitions", "dependentSchemas")
