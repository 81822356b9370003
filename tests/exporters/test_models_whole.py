import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from exporters.models import alone, staged


def test_a_staged_folder_takes_the_place_of_another_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    for text in ("old", "new"):
        with staged(folder) as staging:
            assert not list(staging.iterdir())
            (staging / "file").write_text(text)
            (staging / text).mkdir()
    assert sorted(p.name for p in folder.iterdir()) == ["file", "new"]
    with pytest.raises(FileNotFoundError), staged(folder) as staging:
        shutil.copy(folder / "none", staging)
    assert (folder / "file").read_text() == "new"
    assert [p.name for p in folder.parent.iterdir()] == ["folder"], "its room is free again"


def test_of_two_that_want_to_make_a_folder_one_makes_it(tmp_path: Path) -> None:
    folder, other = tmp_path / "models" / "base", Event()
    made = []

    def ensure(name: str) -> None:
        with alone(folder):
            if not folder.exists():
                made.append(name)
                other.wait(0.3)  # the other's turn to come, were it not kept out
                with staged(folder) as staging:
                    (staging / "file").write_text(name)
            else:
                other.set()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ensure, ("one", "two")))
    assert [(folder / "file").read_text()] == made
