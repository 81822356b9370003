"""One server of vLLM's: launched, and then supervised to its end, or found at a url, and then watched."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from exporters import child
from gateway.engines import vllm_log, vllm_wire
from gateway.engines.errors import NotReady, WorkerGone
from gateway.engines.memory import FirstToGo, as_others

PULSE = 1.0  # seconds between two looks at a server's health
MISSES = 3  # looks in a row that it refuses: then it is gone
LOOK_SECONDS = 10.0  # a busy machine may answer late; one that answers nothing at all is seen where an answer is due
END_SECONDS = 10.0
_OF_THE_MODEL = ("ValueError", "KeyError", "AttributeError", "NotImplementedError")
_OF_THE_ENGINE = ("memory", "Memory", "address", "Address", "parallel", "max_model_len")  # another might serve it


class Server:
    """`url`: without /v1. `gone` is set when it has ended, or refuses to say that it is well. `heard`: when an answer
    of it last brought something, in monotonic seconds. `failed()`: to be called where one should have come."""

    def __init__(
        self,
        url: str,
        *,
        process: asyncio.subprocess.Process | None = None,
        log: Path | None = None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.url = url
        self.failed = failed
        self.gone = asyncio.Event()
        self.heard = 0.0
        self._process = process
        self._log = log
        self._why, self._fault = "still running", ""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LOOK_SECONDS))
        self._watching: list[asyncio.Task[None]] = []

    @classmethod
    async def launch(
        cls, python: str, command: Sequence[str], environ: Mapping[str, str], *, port: int, log: Path, timeout: float
    ) -> "Server":
        """Start one, and wait until it says that it is well. What it writes goes to the file `log`, see vllm_log.
        Raises NotReady where it can't serve this model, WorkerGone (it died for another reason, or took longer than
        `timeout` seconds)."""
        with vllm_log.opened(log) as output, FirstToGo():
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", child.__file__, str(os.getpid()), python, *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environ),
            )
        server = cls(f"http://127.0.0.1:{port}", process=process, log=log)
        server._watching += [
            asyncio.create_task(server._see_end(process)),
            asyncio.create_task(vllm_log.keep_short(log)),
        ]
        try:
            async with asyncio.timeout(timeout):
                await server._until_well()
            as_others(process.pid)
        except TimeoutError:
            await server.close()
            raise WorkerGone(f"vLLM was not well within {timeout:.0f} s; {log} says more") from None
        except BaseException:
            await server.close()
            raise
        server._watching.append(asyncio.create_task(server._look()))
        return server

    @classmethod
    async def find(cls, url: str, *, failed: Callable[[], None] = lambda: None) -> "Server":
        """One that is there. `failed` is called whenever it does not do what it should. Raises WorkerGone."""
        server = cls(url, failed=failed)
        if not await server.well():
            await server.close()
            raise WorkerGone(f"no vLLM server is well at {url}")
        server._watching.append(asyncio.create_task(server._look()))
        return server

    @property
    def pid(self) -> int | None:
        """Of the process that all of a launched server's are below."""
        return None if self._process is None else self._process.pid

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return self._why

    def kill(self, why: str) -> None:
        """End it, as a fault; one that was found is only left."""
        if not self.gone.is_set():
            self.failed()
        self._stop(why)

    def _stop(self, why: str) -> None:
        self._fault = self._fault or why
        if self._process is None:
            self._end(why)
        else:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()  # what runs it ends the whole group, see exporters/child.py

    async def close(self) -> None:
        """End it if it was launched, and wait until it has ended; let go of one that was found."""
        self._stop("it was closed")
        if self._process is not None:
            try:
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        tasks = [task for task in self._watching if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._end("it was closed")
        await self._session.close()

    async def well(self) -> bool:
        """What /health says now; a late answer says nothing, and counts as well."""
        try:
            async with self._session.get(f"{self.url}/health") as response:
                return response.status < 500
        except TimeoutError:
            return True
        except aiohttp.ClientError:
            return False

    async def post(self, path: str, body: Mapping[str, Any], *, timeout: float) -> tuple[int, bytes]:
        """Ask for something that is no answer. Raises WorkerGone."""
        try:
            limit = aiohttp.ClientTimeout(total=timeout)
            async with self._session.post(f"{self.url}{path}", json=body, timeout=limit) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise WorkerGone(f"{self.url}{path}: {type(error).__name__}") from error

    async def models(self) -> list["Card"]:
        """What it serves. Raises WorkerGone."""
        try:
            async with self._session.get(f"{self.url}/v1/models") as response:
                said = await response.read()
                if not response.ok:
                    message = vllm_wire.fault(said).message
                    raise WorkerGone(f"{self.url}/v1/models answered {response.status}: {message or 'no reason'}")
                return msgspec.json.decode(said, type=_Cards).data
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
            raise WorkerGone(f"{self.url}/v1/models: {type(error).__name__}") from error

    async def _until_well(self) -> None:
        while not self.gone.is_set():
            try:
                async with self._session.get(f"{self.url}/health") as response:
                    if response.ok:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.2)
        reason = vllm_log.reason(self._log)
        said = f"vLLM could not start ({self._why}): {reason}; {self._log} says more"
        of_the_model = reason.startswith(_OF_THE_MODEL) or "rchitecture" in reason
        for_good = of_the_model and not any(word in reason for word in _OF_THE_ENGINE)
        raise NotReady(said) if for_good else WorkerGone(said)

    async def _see_end(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        self._end(f"status {status}: {vllm_log.reason(self._log)}; see {self._log}")

    async def _look(self) -> None:
        missed = 0
        while not self.gone.is_set():
            await asyncio.sleep(PULSE)
            missed = 0 if await self.well() else missed + 1
            if missed == MISSES:
                self.kill("it was no longer well")

    def _end(self, why: str) -> None:
        if not self.gone.is_set():
            self._why = self._fault or why
            self.gone.set()


class Card(msgspec.Struct):
    """What a server says of one model. `parent`: of an adapter, its base."""

    id: str
    parent: str | None = None
    max_model_len: int | None = None


class _Cards(msgspec.Struct):
    data: list[Card]


def free_port() -> int:
    """Of loopback, for now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
