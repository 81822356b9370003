"""The collector's socket: one process has it, and nobody else can listen where it is."""

import socket
from pathlib import Path

import pytest

from collector import CollectorError, socket_path
from collector.frames import claimed


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    short = tmp_path / "t"
    short.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(short))
    return str(tmp_path / ("long" * 30))


def test_a_short_path_is_inside_the_state_folder() -> None:
    assert socket_path("/s") == Path("/s/run/collector.sock")


def test_a_long_path_leads_to_one_folder_of_this_user_alone(state: str) -> None:
    path = socket_path(state)
    assert path == socket_path(state) != socket_path(state + "2")
    assert len(bytes(path)) <= 107
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_use_is_refused(state: str, tmp_path: Path) -> None:
    folder = socket_path(state).parent
    folder.chmod(0o777)
    with pytest.raises(CollectorError, match="this user alone"):
        socket_path(state)
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CollectorError, match="this user alone"):
        socket_path(state)


def test_a_place_has_one_holder_from_before_it_listens_and_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "c.sock"
    for _ in range(2):
        with claimed(path):
            assert not path.exists()
            with pytest.raises(CollectorError, match="already listens"), claimed(path):
                pass
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(path))
        assert path.exists()
