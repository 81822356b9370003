"""When a version that failed is tried again."""

from pathlib import Path

from gateway.engines.failures import Failures


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def failures(clock: Clock) -> Failures:
    return Failures(first=1.0, most=5.0, clock=clock)


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
