"""Exporting programs that run in a process of their own: their memory (several times the model's) goes back when they
end, their global state (loggers, hooks) is nobody else's, and what they print goes to a file."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from exporters.child import ending_with
from exporters.models.errors import NO_MEMORY, ExportCutShort, ExportFailed

_LEAST_FREE = 1 << 20  # bytes
_NO_ROOM = ("No space left on device", "File too large", "MemoryError", *NO_MEMORY)


def run_apart(command: Sequence[str], *, log: Path, name: str, timeout: float, order: bytes = b"") -> None:
    """Run a command to its end; `order` is its standard input, its output goes to the file `log`, and no hub is asked.
    It ends with this process. Raises ExportFailed, in which the program is called `name`, with its last words;
    ExportCutShort where the machine ended it, or had no memory or disk left."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1"}
    environment["GIT_DIR"] = (
        os.devnull
    )  # else the commit of the repository that it is installed below goes into a graph
    with log.open("wb") as output:
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter, arguments as a list
                list(command),
                input=order,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=timeout,
                check=False,
                preexec_fn=ending_with(os.getpid()),
            )
        except subprocess.TimeoutExpired as error:
            raise ExportFailed(f"{name} did not end within {timeout:.0f} s; see {log}") from error
    if done.returncode != 0:
        tail = log.read_text(errors="replace")[-600:]
        full = shutil.disk_usage(log.parent).free < _LEAST_FREE  # then it could not even say so in its log
        of_the_machine = full or done.returncode < 0 or any(said in tail for said in _NO_ROOM)
        kind = ExportCutShort if of_the_machine else ExportFailed
        raise kind(f"{name} ended with status {done.returncode}; see {log}:\n{tail}")
