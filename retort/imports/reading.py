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
from typing import Any, BinaryIO

import msgspec

MOST_BYTES = 16 << 20  # of one record
CHUNK = 1 << 20
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
    """An open file. `size` in bytes, None where that isn't known. `places`: what its records are counted by."""

    def __init__(self, raw: io.BufferedReader, size: int | None) -> None:
        self._raw = raw
        self.size = size
        compressed = raw.peek(2).startswith(_GZIP)
        self.stream = io.BufferedReader(gzip.GzipFile(fileobj=raw), CHUNK) if compressed else raw
        try:
            self._begin = self.stream.peek(CHUNK).decode("utf-8", "replace").lstrip(_BOM + " \t\r\n")[:64]
        except (EOFError, OSError, zlib.error) as error:
            raise Broken(f"it can't be decompressed ({error})") from error
        self.places = "lines" if self._is_lines else "records"

    @property
    def read(self) -> int:
        """Bytes of the file that have been read."""
        return self._raw.tell() if self.size is not None else 0

    @property
    def is_array(self) -> bool:
        """Whether it is one JSON array."""
        return self._begin.startswith("[")

    @property
    def is_indented(self) -> bool:
        """Whether objects take several lines."""
        return re.match(r"\{[ \t\r]*\n", self._begin) is not None

    @property
    def _is_lines(self) -> bool:
        return self._begin.startswith("{") and not self.is_indented

    @property
    def is_csv(self) -> bool:
        """Whether it is a table: it begins with no JSON."""
        return self._begin[:1] not in ("", "{", "[")


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
    if source.is_csv:
        found = _rows(source.stream)
    elif source.is_array or source.is_indented:
        found = _decoded(source.stream, array=source.is_array)
    else:
        found = _lines(source.stream)
    try:
        for place, value, wrong in found:
            if wrong:
                yield Value(place, {}, wrong)
                continue
            for record in _records(value):
                yield Value(place, record) if isinstance(record, dict) else Value(place, {}, "not_an_object")
    except (EOFError, OSError, zlib.error) as error:
        raise Broken(f"it can't be read on ({error})") from error


_Found = tuple[int, Any, str]  # place, value, what is wrong with it


def _records(value: Any) -> list[Any]:
    if isinstance(value, dict) and ("object" in value or "meta" in value):
        data = value.get("data")
        if isinstance(data, list):
            return data
    return [value]


def _lines(stream: BinaryIO) -> Iterator[_Found]:
    place = 0
    while line := stream.readline(MOST_BYTES):
        place += 1
        if len(line) == MOST_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield place, None, "too_large"
        elif text := line.removeprefix(codecs.BOM_UTF8).strip():
            try:
                yield place, msgspec.json.decode(text), ""
            except (msgspec.DecodeError, RecursionError):
                yield place, None, "not_json"


def _decoded(stream: BinaryIO, *, array: bool) -> Iterator[_Found]:
    """Each value as soon as it is whole."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    scan = json.JSONDecoder().raw_decode
    between = re.compile(r"[\s,]*" if array else r"\s*")
    text, place, more = decoder.decode(stream.read(CHUNK)), 1, True
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
                raise Broken(f"record {place} is no JSON, or too large") from error
            chunk = stream.read(CHUNK)
            more = bool(chunk)
            text, at = text[at:] + decoder.decode(chunk, final=not more), 0
        except (ValueError, RecursionError) as error:
            raise Broken(f"record {place} can't be read") from error
        else:
            yield place, value, ""
            place += 1


def _rows(stream: BinaryIO) -> Iterator[_Found]:
    """A table with a header; what is empty is left out."""
    csv.field_size_limit(MOST_BYTES)
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.DictReader(text)
    place = 0
    try:
        for place, row in enumerate(rows, start=1):
            yield place, {name: value for name, value in row.items() if name and value}, ""
    except csv.Error as error:
        raise Broken(f"record {place + 1} can't be read ({error})") from error
    finally:
        text.detach()  # who opened the stream closes it
