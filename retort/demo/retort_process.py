"""The Retort under demonstration, as a user would start it: `retort up`, in a process of its own."""

import asyncio
import os
import sys
from pathlib import Path
from typing import IO

from retort.errors import StartError
from retort.up import ready


class RetortProcess:
    """`retort up` on a configuration; what it says goes to a file."""

    def __init__(self, config: Path, url: str, log: Path) -> None:
        self._config = config
        self._url = url
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._output: IO[bytes] | None = None

    async def start(self) -> None:
        """Start and wait until the gateway is ready. Raises StartError."""
        self._output = self._log.open("ab")
        environ = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
        self._process = await asyncio.create_subprocess_exec(
            *_retort("up", "--config", str(self._config)), stdout=self._output, stderr=self._output, env=environ
        )
        gone = asyncio.Event()
        waiting = asyncio.create_task(self._process.wait())
        waiting.add_done_callback(lambda _: gone.set())
        if not await ready(self._url, gone):
            raise StartError(f"retort up did not become ready; see {self._log}")

    @property
    def pid(self) -> int:
        """The supervisor's process id. Raises StartError before the start."""
        if self._process is None:
            raise StartError("retort up was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def stop(self) -> int:
        """As Ctrl-C does; returns the exit status."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.terminate()
        status = await self._process.wait()
        if self._output:
            self._output.close()
        return status

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run one `retort` command on the same configuration; returns its exit status and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *_retort(*arguments, "--config", str(self._config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:  # nobody waits for it any more
                process.terminate()
        return process.returncode or 0, said.decode()


def _retort(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "retort", *arguments]
