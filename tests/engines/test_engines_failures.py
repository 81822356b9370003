"""When a version that failed is tried again."""

import errno
import math
from pathlib import Path

import pytest

from exporters.models import CorruptArtefact, MissingArtefact
from gateway.engines.errors import DecodeFailed, NoRoom, NotReady, Unfit, WorkerGone
from gateway.engines.failures import Failures


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def failures(clock: Clock) -> Failures:
    return Failures(first=1.0, most=5.0, clock=clock)


def test_a_version_that_others_harm_is_tried_again_until_that_has_come_three_times(tmp_path: Path) -> None:
    failed = Failures(first=1.0, most=5.0)
    for wait in (1.0, 2.0):
        assert failed.harmed("v1", tmp_path) == wait
        failed.loaded("v1")
    assert failed.harmed("v1", tmp_path) == math.inf
    assert failed.blocks("v1", tmp_path)
    assert failed.harmed("v2", tmp_path) == 1.0
    failed.forget("v2")  # it was well for a while
    assert [failed.harmed("v2", tmp_path) for _ in range(2)] == [1.0, 2.0]


def test_a_version_that_died_waits_twice_as_long_each_time_up_to_a_limit(tmp_path: Path) -> None:
    clock = Clock()
    failed = failures(clock)
    assert [failed.died("v1", tmp_path) for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert failed.blocks("v1", tmp_path)
    assert not failed.blocks("v2", tmp_path)
    clock.now += 5.0
    assert not failed.blocks("v1", tmp_path)
    failed.forget("v1")
    assert failed.died("v1", tmp_path) == 1.0


def test_what_may_pass_is_tried_again_and_probes_that_break_off_thrice_in_a_row_will_not(tmp_path: Path) -> None:
    failed = failures(Clock())
    wait = [failed.not_loaded("v1", tmp_path, error) for error in (MissingArtefact(), Unfit(), NoRoom())]
    assert wait == [1.0, 2.0, 4.0]
    rows = (DecodeFailed(), DecodeFailed(), WorkerGone(), DecodeFailed(), DecodeFailed(), DecodeFailed())
    wait = [failed.not_loaded("v1", tmp_path, error) for error in rows]
    assert wait == [5.0] * 5 + [math.inf]
    assert failed.not_loaded("v2", tmp_path, NotReady()) == math.inf
    rows = [failed.not_loaded("v4", tmp_path, DecodeFailed()) for _ in range(2)]
    failed.loaded("v4")
    assert math.inf not in [*rows, *(failed.not_loaded("v4", tmp_path, DecodeFailed()) for _ in range(2))]
    assert failed.not_loaded("v3", tmp_path, CorruptArtefact()) == math.inf


def test_a_folder_that_can_not_be_looked_into_is_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = failures(Clock())
    failed.died("v1", tmp_path)

    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "rglob", stale)
    assert failed.blocks("v1", tmp_path)
    assert failed.died("v1", tmp_path) == 2.0


def test_a_broken_artefact_is_left_alone_until_a_file_changes(tmp_path: Path) -> None:
    clock = Clock()
    failed, folder = failures(clock), tmp_path / "v1"
    failed.broken("v1", folder)  # there is no folder at all
    clock.now += 1e9
    assert failed.blocks("v1", folder)
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "model.onnx").write_bytes(b"half")
    assert not failed.blocks("v1", folder)
    failed.broken("v1", folder)
    assert failed.blocks("v1", folder)
    (folder / "sub" / "model.onnx").write_bytes(b"whole")
    assert not failed.blocks("v1", folder)
