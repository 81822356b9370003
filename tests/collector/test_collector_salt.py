"""The state folder's secrets: made once, whole, and their owner's alone."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from collector import SALT_BYTES, CollectorError, read_salt


def test_a_salt_survives_restarts_and_is_the_owners_alone(tmp_path: Path) -> None:
    salt = read_salt(tmp_path / "run" / "salt")
    assert read_salt(tmp_path / "run" / "salt") == salt
    assert len(salt) == SALT_BYTES
    assert salt != bytes(SALT_BYTES)
    assert stat.S_IMODE((tmp_path / "run" / "salt").stat().st_mode) == 0o600


def test_processes_that_start_at_once_share_one_salt(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        salts = set(pool.map(read_salt, [tmp_path / "run" / "salt"] * 64))
    assert len(salts) == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["salt"]


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_salt_of_the_wrong_length_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "salt").write_bytes(content)
    with pytest.raises(CollectorError, match=f"salt: holds {len(content)} bytes instead of 32; remove it"):
        read_salt(tmp_path / "salt")
