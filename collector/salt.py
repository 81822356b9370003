"""A state folder's secrets: each is made once, by whoever needs it first, and is the same for all from then on."""

import contextlib
import os
import secrets
from pathlib import Path

from collector.errors import CollectorError
from router import private_folder

SALT_BYTES = 32


def read_salt(path: Path) -> bytes:
    """The secret at `path`, SALT_BYTES long; made at the first use, readable by its owner alone.

    It is on the disk before it has its name, so a power cut leaves no empty one; and the link that names it is made or
    refused as one step, so of several processes that start at once one wins, and all read its salt. Raises
    CollectorError where what is there has another length, OSError where it can't be read or made.
    """
    private_folder(path.parent)
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_bytes(SALT_BYTES))
            os.fsync(handle)
        finally:
            os.close(handle)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(fresh)
        fresh.unlink()
    salt = path.read_bytes()
    if len(salt) != SALT_BYTES:
        raise CollectorError(f"{path}: holds {len(salt)} bytes instead of {SALT_BYTES}; remove it to get a new one")
    return salt
