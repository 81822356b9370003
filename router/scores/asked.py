"""What a request asked for, as far as it decides whether an answer is a bad one."""

from collections.abc import Mapping
from typing import Any

import msgspec


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """`json`: the answer must be one JSON value. `schema`: and valid under this JSON Schema. `tools`: the names that
    may be called: none where the request says so."""

    json: bool = False
    schema: dict[str, Any] | None = None
    tools: tuple[str, ...] = ()

    @property
    def response_format(self) -> dict[str, Any] | None:
        """What a request says that asks for the same form again, as far as it is known."""
        if self.schema is not None:
            return {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.schema}}
        return {"type": "json_object"} if self.json else None


def asked(request: Mapping[str, Any]) -> Asked:
    """Read a chat request's body. What it holds in an unknown form asks for nothing."""
    shape = request.get("response_format")
    kind = shape.get("type") if isinstance(shape, Mapping) else None
    schema = None
    if isinstance(shape, Mapping) and kind == "json_schema":
        wrapped = shape.get("json_schema")
        schema = wrapped.get("schema") if isinstance(wrapped, Mapping) else None
    tools: list[str] = []
    if request.get("tool_choice") != "none":
        tools = [*_names(request.get("tools"), "function"), *_names(request.get("functions"), None)]
    return Asked(
        json=kind in ("json_object", "json_schema"),
        schema=schema if isinstance(schema, dict) else None,
        tools=tuple(tools),
    )


def _names(tools: Any, inside: str | None) -> list[str]:
    """`inside`: the key under which a tool describes itself."""
    listed = tools if isinstance(tools, list) else []
    described = [tool.get(inside) if inside and isinstance(tool, Mapping) else tool for tool in listed]
    names = [d.get("name") for d in described if isinstance(d, Mapping)]
    return [name for name in names if isinstance(name, str)]
