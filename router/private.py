"""What is made for this user alone: the state folder, and databases that hold texts, or the keys to them."""

from contextlib import suppress
from pathlib import Path


def private_folder(folder: Path) -> None:
    """Make a folder, with those above it that are missing, as 0700. One that is there keeps its mode: whoever made it
    may have meant it. Raises OSError."""
    for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def private_database(path: Path) -> None:
    """Make a SQLite file, and its folder, as 0600 and 0700; one that is there is taken from all others, with its
    write-ahead log, which SQLite gives the file's own mode when it makes one. Raises OSError."""
    private_folder(path.parent)
    if not path.exists():
        path.touch(mode=0o600)
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        file = path.with_name(name)
        with suppress(FileNotFoundError, PermissionError):  # another's file is the other's to close
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)
