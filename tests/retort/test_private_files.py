"""What holds texts, or the keys to them, is its user's alone on this machine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector import open_log, open_subjects
from retort.supervisor import lock_state
from router import open_registry

OPENERS = [open_log, open_subjects, open_registry]


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.parametrize("opener", OPENERS, ids=lambda one: str(one.__name__))
def test_a_database_and_the_folders_on_the_way_to_it_are_made_for_this_user_alone(
    opener: Callable[[str], Any], tmp_path: Path
) -> None:
    opened = opener(f"sqlite:///{tmp_path}/new/state/a.db")
    assert modes(tmp_path) == {"new": 0o700}
    assert modes(tmp_path / "new") == {"state": 0o700}
    assert modes(tmp_path / "new" / "state") == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}
    opened.close()


@pytest.mark.parametrize("opener", OPENERS, ids=lambda one: str(one.__name__))
def test_one_that_is_there_is_tightened_and_its_folder_is_left_as_somebody_made_it(
    opener: Callable[[str], Any], tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o750)
    first = opener(f"sqlite:///{folder}/a.db")
    for path in folder.iterdir():
        path.chmod(0o644)
    again = opener(f"sqlite:///{folder}/a.db")
    assert set(modes(folder).values()) == {0o600}
    assert modes(tmp_path) == {"state": 0o750}
    again.close()
    first.close()


def test_the_state_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    lock_state(str(tmp_path / "state")).close()
    assert modes(tmp_path) == {"state": 0o700}
