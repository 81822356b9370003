"""From a file to its records: whatever its shape and size, and nothing that is none goes unnoticed."""

import gzip
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retort.imports import Broken, Value, opened, values
from retort.imports.reading import CHUNK, MOST_BYTES


def read(path: Path, content: bytes | str) -> list[Value]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with opened(str(path)) as source:
        found = list(values(source))
        assert source.read == source.size
        return found


def data(path: Path, content: bytes | str) -> list[Any]:
    return [value.wrong or value.data for value in read(path, content)]


RECORDS = [{"a": 1, "text": 'a "quoted", [bracketed] {text}\nof two lines'}, {"b": [1, {"c": "]"}]}, {"d": "é€😀"}]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(json.dumps(r) for r in RECORDS),
        "\ufeff" + "\r\n\r\n".join(json.dumps(r, ensure_ascii=False) for r in RECORDS) + "\r\n",
        json.dumps(RECORDS),
        "\ufeff \n" + json.dumps(RECORDS, indent=2, ensure_ascii=False),
        "\n".join(json.dumps(r, indent=4) for r in RECORDS),
        json.dumps({"object": "list", "data": RECORDS, "has_more": False}),
        json.dumps({"data": RECORDS[:1], "meta": {"page": 1}}, indent=1)
        + json.dumps({"data": RECORDS[1:], "meta": {"page": 2}}, indent=1),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_shape_of_a_file_gives_its_records(content: str, compressed: bool, tmp_path: Path) -> None:
    raw = content.encode()
    assert data(tmp_path / "f", gzip.compress(raw) if compressed else raw) == RECORDS


@given(st.lists(st.dictionaries(st.text(), st.recursive(st.text() | st.integers() | st.none(), st.lists), max_size=3)))
def test_arrays_read_back_as_they_were_written(records: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert data(Path(folder) / "f", json.dumps(records)) == records


def test_values_that_span_chunks_are_put_together(tmp_path: Path) -> None:
    records = [{"n": n, "text": "x\\" * (CHUNK // 5 * n), "more": [n, None, True]} for n in range(6)]
    assert data(tmp_path / "array", json.dumps(records)) == records
    assert data(tmp_path / "indented", "\n".join(json.dumps(r, indent=1) for r in records)) == records


def test_what_is_no_record_has_its_line_and_reason(tmp_path: Path) -> None:
    content = b'{"a": 1}\n{"cut\n\n"text"\n[1]\n{"b": "\xff"}\n{"c": "\\ud83d"}\n{"d": 4}'
    found = [(value.place, value.wrong) for value in read(tmp_path / "f", content)]
    assert found == [
        (1, ""), (2, "not_json"), (4, "not_an_object"), (5, "not_an_object"), (6, "not_json"), (7, "not_json"), (8, ""),
    ]  # fmt: skip


def test_of_an_array_records_are_counted(tmp_path: Path) -> None:
    found = [(value.place, value.wrong) for value in read(tmp_path / "f", '[{"a": 1}, 7, {"b": 2}]')]
    assert found == [(1, ""), (2, "not_an_object"), (3, "")]


def test_a_line_that_is_too_large_is_passed_over_without_being_held(tmp_path: Path) -> None:
    large = b'{"a": "' + b"x" * (MOST_BYTES + 10) + b'"}'
    found = read(tmp_path / "f", b'{"a": 1}\n' + large + b'\n{"b": 2}\n' + large)
    assert [(value.place, value.wrong) for value in found] == [(1, ""), (2, "too_large"), (3, ""), (4, "too_large")]


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    assert read(tmp_path / "f", b"") == read(tmp_path / "g", b"[]") == read(tmp_path / "h", gzip.compress(b"\n")) == []


@pytest.mark.parametrize(
    ("content", "good", "says"),
    [
        (b'[{"a": 1}, {"b": nonsense}, {"c": 3}' + b" " * 100 + b"]", 1, "value 2 is no JSON"),
        (b'[{"a": 1}, {"b": 2}', 2, "value 3 is no JSON"),
        (b'[{"a": 1}, {"b": "no end', 1, "value 2 is no JSON"),
        (b'[{"a": 1}, {"b": ' + b"9" * 5000 + b"}]", 1, "value 2 can't be read"),
        (b'[{"a": 1}, ' + b"[" * 100_000 + b"]" * 100_000 + b"]", 1, "value 2 can't be read"),
        (b'{\n"a": 1}\n{\n"b": 2}\n}', 2, "value 3 is no JSON"),
        (gzip.compress(b'{"a": 1}\n' * 50_000)[:-20], 50_000, "decompressed"),
        (b'input,output\na,"' + b"x" * (MOST_BYTES + 10) + b'"\n', 0, "after line 1 it can't be read"),
    ],
)
def test_a_file_that_breaks_gives_what_stands_before_and_says_where(
    content: bytes, good: int, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    found: list[Value] = []
    with opened(str(path)) as source, pytest.raises(Broken, match=says):
        found.extend(values(source))
    assert good - 1000 <= len(found) <= good
    assert not any(value.wrong for value in found)


def test_what_only_begins_like_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"\x1f\x8bnonsense, and no gzip")
    with pytest.raises(Broken, match="decompressed"), opened(str(path)):
        pass


def test_a_table_gives_its_rows_without_what_is_empty(tmp_path: Path) -> None:
    content = '\ufeffid,input,output\r\n1,"two\r\nlines, ""quoted""",yes\r\n2,,no\r\n'
    assert data(tmp_path / "f", content) == [
        {"id": "1", "input": 'two\r\nlines, "quoted"', "output": "yes"},
        {"id": "2", "output": "no"},
    ]


@pytest.mark.parametrize("shape", ["array", "lines", "table"])
def test_memory_does_not_grow_with_the_file(shape: str, tmp_path: Path) -> None:
    record = json.dumps({"id": "1", "text": "words and words " * 250})
    path = tmp_path / "f"
    with path.open("w") as file:
        file.write({"array": "[", "lines": "", "table": "id,text\n"}[shape])
        for n in range(6000):
            line = {"array": ("," if n else "") + record, "lines": record + "\n", "table": f'{n},"{record[20:-2]}"\n'}
            file.write(line[shape])
        file.write("]" if shape == "array" else "")
    assert path.stat().st_size > 20 << 20
    with opened(str(path)) as source:
        tracemalloc.start()
        count = sum(1 for _ in values(source))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert count == 6000
    assert peak < 8 * CHUNK
