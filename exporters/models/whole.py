"""Files and folders that are there whole or not at all, also after a crash and beside other processes."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file so that a reader sees the old or the new content, whole, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync(path.parent)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """An empty folder, which takes the place of `folder` once all is written into it; not where an error is raised."""
    staging = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        for file in staging.rglob("*"):
            sync(file)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)  # a disk that is full has its room again
        raise
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    sync(folder.parent)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Of several processes that want to make `folder`, one makes it: the others wait here, and find it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def take(blob: Path, file: Path) -> None:
    """Let a new file be the bytes of another that nobody writes to; a copy where the file system has no links."""
    try:
        os.link(blob, file)
    except OSError:
        shutil.copyfile(blob, file)
