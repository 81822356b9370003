"""The types that policies are made of."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Step = Annotated[float, Field(gt=0.0, le=1.0)]
OpenRate = Annotated[float, Field(gt=0.0, lt=1.0)]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: object) -> object:
    """Read `200ms`, `10s`, `15m`, `24h` or `30d` as seconds; a bare number already is seconds."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    unit = text.lstrip("0123456789.")
    number = text[: len(text) - len(unit)]
    if unit not in _UNITS or not number or number.count(".") > 1 or number == ".":
        raise ValueError(f"{value!r} is no duration; write a number and one of ms, s, m, h, d, for example 10s")
    return float(number) * _UNITS[unit]


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0.0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Frozen, and no key that it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)
