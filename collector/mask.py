"""Masking what goes to a teacher: a socket and a scrub pool of its own, so that capture's backlog never delays it.

Fails closed: what can't be masked is answered with a reason, never with a body.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import msgspec

from collector.errors import ScrubError, without_text
from collector.frames import claimed
from collector.kept import untouchable
from collector.mask_frames import LENGTH, MASK_SECONDS, MOST_BYTES, MaskReply, MaskRequest, mask_socket, packed
from collector.salt import read_salt
from collector.scrub_pool import ScrubPool
from collector.scrubbed import Scrubbed
from collector.sealing import at, users
from router import Config, Events, RoutePolicy

log = logging.getLogger("retort.collector")

MOST_AT_ONCE = 64  # of all connections; beyond that the sockets are not read

_asked = msgspec.msgpack.Decoder(MaskRequest)


class MaskingPool(Protocol):
    """Where texts are masked; collector.scrub_pool.ScrubPool is the real one."""

    async def scrub(
        self, values: list[Any], *, route: str, cluster: str, untouchable: frozenset[str], reversible: bool
    ) -> Scrubbed:
        """Raises ScrubError; never returns unscrubbed text."""


@contextlib.asynccontextmanager
async def masking(config: Config) -> AsyncIterator[None]:
    """Mask while inside, where a route asks for it. Raises CollectorError, ScrubError."""
    routes = {name: policy for name, policy in config.routes.items() if policy.capture.mask_teachers}
    if not routes:
        yield
        return
    path = mask_socket(config.state)
    captures = {name: policy.capture for name, policy in routes.items()}
    # Its events stay untold: the gateway counts what is masked, and the series of scrubbing are of what is captured.
    pool = ScrubPool(config.state, routes=captures, workers=config.mask_workers, events=Events(), timeout=MASK_SECONDS)
    with claimed(path):
        try:
            await pool.start()
            salt = read_salt(Path(config.state) / "run" / "scrub.salt")
            async with MaskServer(routes, pool, workers=config.mask_workers, salt=salt).listening(path):
                yield
        finally:
            await pool.close()


class MaskServer:
    """Answers requests of any number of connections. `salt`: for the hashes in place of users' names."""

    def __init__(
        self,
        routes: dict[str, RoutePolicy],
        pool: MaskingPool,
        *,
        workers: int,
        salt: bytes,
        seconds: float = MASK_SECONDS,
    ) -> None:
        self._routes = routes
        self._pool = pool
        self._salt = salt
        self._seconds = seconds
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._free = asyncio.Semaphore(workers)
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """Serve at `path` while inside."""
        server = await asyncio.start_unix_server(self._connected, str(path))
        path.chmod(0o600)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)
            for writer in list(self._connections):
                writer.close()
            for task in list(self._tasks):
                task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                if size > MOST_BYTES:
                    raise ValueError(f"a request of {size} bytes is over the limit")
                asked = _asked.decode(await reader.readexactly(size))
                await self._room.acquire()
                task = asyncio.create_task(self._answer(asked, writer))
                self._tasks.add(task)
                task.add_done_callback(self._answered)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except (ValueError, msgspec.MsgspecError) as error:
            log.error("collector.bad_mask_request", extra=without_text(error))
        finally:
            self._connections.discard(writer)
            writer.close()

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()

    async def _answer(self, asked: MaskRequest, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds
        try:
            async with self._free:
                if writer.is_closing() or loop.time() > until:
                    raise ScrubError("late")  # nobody waits for it any more
                reply = await self._masked(asked)
        except ScrubError as error:
            reply = MaskReply(asked.id, refused=str(error))
        except Exception as error:
            # The edge of one request: whatever went wrong there, no text goes on.
            log.error("collector.masking_failed", extra=without_text(error))
            reply = MaskReply(asked.id, refused="failed")
        if not writer.is_closing():
            writer.write(packed(reply))

    async def _masked(self, asked: MaskRequest) -> MaskReply:
        policy = self._routes.get(asked.route)
        if policy is None:
            raise ScrubError("unknown_route")
        try:
            request = msgspec.json.decode(asked.body, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise ScrubError("not_json") from error
        if _holds_more_than_text(request):
            raise ScrubError("not_text")
        scrubbed = await self._pool.scrub(
            [request],
            route=asked.route,
            cluster=asked.cluster,
            untouchable=untouchable(request, asked.route, policy),
            reversible=True,
        )
        clean = scrubbed.values[0]
        self._hash_users(clean, request)
        return MaskReply(asked.id, msgspec.json.encode(clean), scrubbed.pairs)

    def _hash_users(self, clean: dict[str, Any], request: dict[str, Any]) -> None:
        """A user's name is replaced whatever it looks like; by another hash than in the log, so that a teacher's leads
        to no record there."""
        for above, place, said in users(request):
            at(clean, above)[place] = blake2b(said.encode(), key=self._salt, digest_size=16).hexdigest()


def _holds_more_than_text(request: dict[str, Any]) -> bool:
    """Whether a message has parts that can't be looked at: an image, a sound, a file."""
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else ():
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and part.get("type") not in ("text", "refusal"):
                return True
    return False
