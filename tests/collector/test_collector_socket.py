"""A state folder with a long path: its socket is where nobody else can listen."""

from pathlib import Path

import pytest

from collector import CollectorError, socket_path


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
