"""Logs of servers stay short, and nobody who writes one is held up."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from engine_fakes import until
from test_vllm_fleet import Make, manifest, whole

from gateway.engines.vllm_log import LONGEST, keep_short, opened, reason


async def test_what_has_grown_too_long_moves_into_one_older_file_and_writing_goes_on(tmp_path: Path) -> None:
    path, older = tmp_path / "new" / "v1.log", tmp_path / "new" / "v1.log.1"
    with opened(path) as output:
        keeping = asyncio.create_task(keep_short(path, longest=100, seconds=0.01))
        for number in (b"1", b"2"):
            output.write(number * 100)
            output.flush()
            await asyncio.sleep(0.05)
            assert path.read_bytes() == number * 100, "it is not too long"
            output.write(b"end")
            output.flush()
            await until(lambda: not path.stat().st_size)
            assert older.read_bytes() == number * 97 + b"end"
        output.write(b"3")
    assert path.read_bytes() == b"3", "from the file's new beginning"
    path.unlink()
    await asyncio.wait_for(keeping, 30)


async def test_a_log_that_cant_be_moved_is_told_and_short_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "v1.log"
    path.write_bytes(b"x" * 101)
    (tmp_path / "v1.log.1").mkdir()
    keeping = asyncio.create_task(keep_short(path, longest=100, seconds=0.01))
    await until(lambda: bool(caplog.records))
    assert not path.stat().st_size
    assert (caplog.records[0].levelno, caplog.records[0].getMessage()) == (logging.WARNING, "engine.log_not_kept_short")
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


def test_the_log_of_the_last_server_is_kept_and_a_reason_is_found_in_that_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "v1.log"
    for number in range(3):
        with opened(path) as output:
            output.write(b"ValueError: %d\n" % number)
    assert (path.read_text(), (tmp_path / "v1.log.1").read_text()) == ("ValueError: 2\n", "ValueError: 1\n")
    assert reason(path) == "ValueError: 2"
    assert reason(None) == "no reason"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (
            "(APIServer pid=7) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "(APIServer pid=7)   Value error, Model architectures ['X'] are not supported for now.\n",
            "ValidationError: 1 validation error for ModelConfig; Value error, Model architectures ['X'] are not "
            "supported for now.",
        ),
        (
            "usage: api_server.py [options]\napi_server.py: error: unrecognized arguments: --dtyp\n",
            "error: unrecognized arguments: --dtyp",
        ),
    ],
)
def test_a_reason_is_whole_where_it_goes_on_and_found_where_the_command_line_was_wrong(
    tmp_path: Path, said: str, found: str
) -> None:
    path = tmp_path / "v1.log"
    path.write_text(said)
    assert reason(path) == found


async def test_a_launched_server_that_says_much_has_a_short_log_and_those_of_artefacts_that_are_gone_are_removed(
    fleets: Make, program: Any, tmp_path: Path
) -> None:
    logs = tmp_path / "state/vllm/local"
    logs.mkdir(parents=True)
    for name in ("gone.log", "gone.log.1", "base.log", "v1.log"):
        (logs / name).write_text("before")
    child = await fleets(python=program("talks")).start(whole(tmp_path), manifest(), timeout=60)
    assert sorted(path.name for path in logs.glob("*.log*")) == ["base.log", "v1.log", "v1.log.1"]
    await until(lambda: (logs / "v1.log").stat().st_size < LONGEST / 2, seconds=60)
    assert (logs / "v1.log.1").stat().st_size == LONGEST
    await child.close()
