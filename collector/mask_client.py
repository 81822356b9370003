"""Asking the collector to mask: one connection, on which any number of requests wait for their answers."""

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec

from collector.errors import CollectorUnavailable, ScrubError
from collector.mask_frames import LENGTH, OF_THE_REQUEST, MaskReply, MaskRequest, packed

_reply = msgspec.msgpack.Decoder(MaskReply)


class MaskClient:
    """Connects when it is asked something, and again after a break."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connecting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[MaskReply]] = {}
        self._last = 0

    async def mask(self, route: str, cluster: str, body: bytes, *, seconds: float) -> MaskReply:
        """The request for a teacher.

        Raises CollectorUnavailable where nobody masks it within `seconds`; ScrubError, which says why, where it can't
        be masked.
        """
        self._last += 1
        asked = MaskRequest(self._last, route, cluster, body)
        answer: asyncio.Future[MaskReply] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                writer = await self._connected()
                self._waiting[asked.id] = answer
                writer.write(packed(asked))
                reply = await answer
        except (OSError, TimeoutError) as error:
            why = "in time" if isinstance(error, TimeoutError) else f"at {self._path}"
            raise CollectorUnavailable(f"nobody masks {why}") from error
        finally:
            self._waiting.pop(asked.id, None)
        if not reply.refused:
            return reply
        if reply.refused in OF_THE_REQUEST:
            raise ScrubError(OF_THE_REQUEST[reply.refused])
        raise CollectorUnavailable(f"the collector does not mask: {reply.refused}")

    async def reachable(self) -> bool:
        """Whether somebody masks, now."""
        try:
            await self._connected()
        except OSError:
            return False
        return True

    async def close(self) -> None:
        """End the connection; who still waits gets a CollectorUnavailable."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await asyncio.open_unix_connection(str(self._path))
                self._reading = asyncio.create_task(self._read(reader, self._writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                reply = _reply.decode(await reader.readexactly(size))
                waiting = self._waiting.get(reply.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except (asyncio.IncompleteReadError, OSError, msgspec.MsgspecError):
            pass
        finally:
            self._writer = None
            writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionResetError("the collector has left"))
