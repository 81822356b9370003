"""From a file to its records, one after the other, whatever its size: JSON lines, a JSON array, JSON values one after
the other (indented, say), or CSV; each plain or compressed with gzip; a page ({"data": [...]}) of records is unpacked.
"""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import msgspec

MOST_BYTES = 16 << 20  # of one record
CHUNK = 1 << 20
# Why a value is no record, in words.
WRONG = {"not_json": "no JSON", "not_an_object": "no JSON object", "too_large": "larger than 16 MiB"}
_GZIP = b"\x1f\x8b"
_BOM = "\ufeff"
_TOKEN = 16  # characters at the end of what was read, in which a number or an escape may be cut in two


class Broken(Exception):
    """The file can't be read on from here; the message says why."""


class Value(msgspec.Struct, frozen=True):
    """A record. `place`: its line, or its number where records are no lines. `wrong`: why it is none, a constant."""

    place: int
    data: dict[str, Any]
    wrong: str = ""


class Source:
    """An open file. `size` in bytes, None where that isn't known. `shape`: how its records follow each other."""

    def __init__(self, raw: io.BufferedReader, size: int | None) -> None:
        self._raw = raw
        self.size = size
        stream = gzip.GzipFile(fileobj=raw) if raw.peek(2).startswith(_GZIP) else raw
        try:
            self.shape = _shape(stream.peek(CHUNK).decode("utf-8", "replace").lstrip(_BOM + " \t\r\n"))
        except (EOFError, OSError, zlib.error) as error:
            raise Broken(f"it can't be decompressed ({error})") from error
        self.stream = cast(BinaryIO, stream)

    @property
    def places(self) -> str:
        """What a value's place counts."""
        return "lines" if self.shape == "lines" else "records"

    @property
    def read(self) -> int:
        """Bytes of the file that have been read."""
        return self._raw.tell() if self.size is not None else 0


def _shape(begin: str) -> Literal["lines", "array", "indented", "table"]:
    if begin.startswith("["):
        return "array"
    if re.match(r"\{[ \t\r]*\n", begin):
        return "indented"
    return "lines" if begin[:1] in ("", "{") else "table"


@contextmanager
def opened(name: str) -> Iterator[Source]:
    """The file, or standard input for `-`. Raises OSError, Broken."""
    if name == "-":
        with open(0, "rb", closefd=False) as raw:
            yield Source(raw, None)
    else:
        path = Path(name)
        with path.open("rb") as raw:
            yield Source(raw, path.stat().st_size)


def values(source: Source) -> Iterator[Value]:
    """Its records, those that are none included. Raises Broken."""
    number = 0
    try:
        for line, value, wrong in _found(source):
            for record in _records(value):
                number += 1
                place = line or number
                if wrong or not isinstance(record, dict):
                    yield Value(place, {}, wrong or "not_an_object")
                else:
                    yield Value(place, record)
    except (EOFError, OSError, zlib.error) as error:
        raise Broken(f"after record {number} it can't be decompressed ({error})") from error


_Found = tuple[int, Any, str]  # line (0 where records are no lines), value, what is wrong with it


def _found(source: Source) -> Iterator[_Found]:
    if source.shape == "lines":
        return _lines(source.stream)
    if source.shape == "table":
        return _rows(source.stream)
    return _decoded(source.stream, array=source.shape == "array")


def _records(value: Any) -> list[Any]:
    if isinstance(value, dict) and ("object" in value or "meta" in value):
        data = value.get("data")
        if isinstance(data, list):
            return data
    return [value]


def _lines(stream: BinaryIO) -> Iterator[_Found]:
    number = 0
    while line := stream.readline(MOST_BYTES):
        number += 1
        if len(line) == MOST_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield number, None, "too_large"
        elif text := line.removeprefix(codecs.BOM_UTF8).strip():
            try:
                yield number, msgspec.json.decode(text), ""
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                yield number, None, "not_json"


def _decoded(stream: BinaryIO, *, array: bool) -> Iterator[_Found]:
    """Each value as soon as it is whole."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    scan = json.JSONDecoder().raw_decode
    between = re.compile(r"[\s,]*" if array else r"\s*")
    text, number, more = decoder.decode(stream.read(CHUNK)), 1, True
    at = text.index("[") + 1 if array else 0
    while True:
        found = between.match(text, at)
        at = found.end() if found else at
        if array and text.startswith("]", at):
            return
        try:
            value, at = scan(text, at)
        except json.JSONDecodeError as error:
            if not more and not array and at == len(text):
                return
            cut = error.pos >= len(text) - _TOKEN or error.msg.startswith("Unterminated string")
            if not more or not cut or len(text) - at > MOST_BYTES:
                raise Broken(f"value {number} is no JSON, or too large") from error
            chunk = stream.read(CHUNK)
            more = bool(chunk)
            text, at = text[at:] + decoder.decode(chunk, final=not more), 0
        except (ValueError, RecursionError) as error:
            raise Broken(f"value {number} can't be read") from error
        else:
            yield 0, value, ""
            number += 1


def _rows(stream: BinaryIO) -> Iterator[_Found]:
    """A table with a header; what is empty is left out."""
    csv.field_size_limit(MOST_BYTES)
    rows = csv.DictReader(codecs.iterdecode(stream, "utf-8-sig", errors="surrogateescape"))
    try:
        for row in rows:
            yield 0, {name: value for name, value in row.items() if name and value}, ""
    except csv.Error as error:
        raise Broken(f"after line {rows.line_num} it can't be read ({error})") from error
