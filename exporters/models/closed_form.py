"""The form of answers of which there are few: literal pieces with a value between each two, and every field's values.

    '{"intent": ' + '"refund"' + ', "urgent": ' + 'true' + '}'

Values are kept as the teacher spells them, quotes included, so that an answer put together is the teacher's own, to the
byte. An answer that is no JSON object has one field, with no name: the whole answer.
"""

from collections.abc import Sequence

import msgspec


class Field(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name`: the keys that lead to it, with dots between; empty for a whole answer."""

    name: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"the field {self.name!r} has no value")


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`pieces`: one more than there are `fields`."""

    pieces: tuple[str, ...]
    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        if not self.fields or len(self.pieces) != len(self.fields) + 1:
            raise ValueError(f"{len(self.fields)} fields take {len(self.fields) + 1} pieces, not {len(self.pieces)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the fields."""
        return tuple(field.name for field in self.fields)

    @property
    def sizes(self) -> list[int]:
        """How many values each field takes."""
        return [len(field.values) for field in self.fields]

    def write(self, chosen: Sequence[int]) -> str:
        """The answer of one value, by its number, for each field."""
        values = [field.values[number] for field, number in zip(self.fields, chosen, strict=True)]
        return "".join(p + v for p, v in zip(self.pieces, values, strict=False)) + self.pieces[-1]
