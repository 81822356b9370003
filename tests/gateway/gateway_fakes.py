"""A fake OpenAI upstream on a real loopback socket, fakes for the gateway's seams, and the gateway itself on port 0."""

import asyncio
import contextlib
import io
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvicorn

from collector import Exchange, Feedback, Happened, Header, MaskReply, socket_path
from collector.frames import ACK, PREFIX, unpack
from gateway.app import Gateway, create_app
from gateway.serve import listen
from gateway.snapshots import Snapshots
from gateway.upstream import AiohttpUpstream
from router import Config, Events, Rollout, Snapshot, Stage, parse

SALT = bytes(range(32))
STUDENT = "support-20260101-000000-abcd"


@dataclass
class Asked:
    """A request that the fake upstream got."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


class FakeUpstream:
    """Answers each request with the next behaviour, the last one for ever. `gone_at`: when a client left early."""

    def __init__(self) -> None:
        self.behaviours: list[Behaviour] = [plain("hello")]
        self.asked: list[Asked] = []
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()
        self.gone_at = 0.0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def will(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._answer(Asked(head[0].split()[1], headers, body), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behaviour = self.behaviours[0] if len(self.behaviours) == 1 else self.behaviours.pop(0)
        self.asked.append(asked)
        self.arrived.set()
        answering = asyncio.ensure_future(behaviour(asked, writer))
        leaving = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done() and not answering.done():
            self.gone_at = time.monotonic()
            self.gone.set()
            answering.cancel()
        leaving.cancel()
        await asyncio.wait({answering, leaving})
        for future in (answering, leaving):
            if not future.cancelled():
                with contextlib.suppress(ConnectionError):
                    future.result()


def completion(text: str, **extra: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    # Odd spacing on purpose: a gateway that rebuilds the body would lose it.
    fields = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps({**fields, "usage": usage, **extra}, separators=(" ,", ":  ")).encode()


def reply(body: bytes, *, status: int = 200, headers: dict[str, str] | None = None, delay: float = 0.0) -> Behaviour:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay)
        fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        head = "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return behave


def plain(text: str, **options: Any) -> Behaviour:
    return reply(completion(text), **options)


def error(status: int, message: str = "no", **options: Any) -> Behaviour:
    body = json.dumps({"error": {"message": message, "type": "t", "param": None, "code": "c"}}).encode()
    return reply(body, status=status, **options)


def hang() -> Behaviour:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    return behave


def drop() -> Behaviour:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    return behave


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
ROLE = event({"role": "assistant", "content": ""})
STREAM = [ROLE, event({"content": "hel"}), event({"content": "lo"}), event({}, "stop"), DONE]
ERROR_EVENT = b'data: {"error": {"message": "overloaded", "type": "server_error", "code": null}}\n\n'


def stream(
    pieces: list[bytes], *, pause: float = 0.0, end: str = "clean", headers: dict[str, str] | None = None
) -> Behaviour:
    """`end`: clean, cut (the connection breaks), or hang."""

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **(headers or {})}
        writer.write(b"HTTP/1.1 200 OK\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()).encode() + b"\r\n")
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            if pause:
                await asyncio.sleep(pause)
        if end == "clean":
            writer.write(b"0\r\n\r\n")
        elif end == "cut":
            await asyncio.sleep(0.02)
            writer.transport.abort()
        else:
            await asyncio.sleep(60)

    return behave


class FakeSender:
    """Keeps the frames. `full`: refuse, as a full buffer does. `spools`: survive."""

    def __init__(self) -> None:
        self.frames: list[tuple[Header, tuple[bytes, ...]]] = []
        self.begun: list[tuple[Header, tuple[bytes, ...]]] = []
        self.over: list[int] = []
        self.full = self.spools = self.crowded = False
        self._came = asyncio.Event()

    def begin(self, header: Header, *bodies: bytes) -> int | None:
        self.begun.append((header, bodies))
        return len(self.begun)

    def send(self, header: Header, *bodies: bytes, begun: int | None = None) -> bool:
        if begun is not None:
            self.over.append(begun)
        if self.full:
            return False
        self.frames.append((header, bodies))
        self._came.set()
        return True

    async def exchange(self, number: int = 0) -> tuple[Exchange, tuple[bytes, ...]]:
        """The exchange of that number, waited for."""
        async with asyncio.timeout(5):
            while True:
                found = [(h, b) for h, b in self.frames if isinstance(h, Exchange)]
                if len(found) > number:
                    return found[number]
                self._came.clear()
                await self._came.wait()

    @property
    def happened(self) -> list[Happened]:
        return [header for header, _ in self.frames if isinstance(header, Happened)]

    @property
    def feedback(self) -> list[tuple[Feedback, bytes]]:
        return [(header, b"".join(bodies)) for header, bodies in self.frames if isinstance(header, Feedback)]


@contextlib.asynccontextmanager
async def collector(state: str) -> AsyncIterator[list[Header]]:
    """Listens where a state folder's collector does, and acknowledges every frame; yields the headers."""
    headers: list[Header] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, body = PREFIX.unpack(await reader.readexactly(PREFIX.size))
                envelope = unpack(await reader.readexactly(head))
                await reader.readexactly(body)
                headers.append(envelope.header)
                writer.write(ACK.pack(envelope.sequence))
        writer.close()

    path = socket_path(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield headers
    finally:
        server.close()
        path.unlink(missing_ok=True)


class FakeRegistry:
    """What the gateway uses of a registry."""

    def __init__(self) -> None:
        self.value = Snapshot(rollouts={}, endpoints={})
        self.failing = False
        self.closed = False
        self.slow = 0.0

    def snapshot(self) -> Snapshot:
        time.sleep(self.slow)
        if self.failing:
            raise OSError("the disk is gone")
        return self.value

    def close(self) -> None:
        self.closed = True


class FakeMasker:
    """Masks by its `pairs`, surrogate -> original. `fails`: raised instead. `slow`: seconds that it takes."""

    def __init__(self) -> None:
        self.pairs: dict[str, str] = {}
        self.asked: list[tuple[str, str, bytes]] = []
        self.fails: Exception | None = None
        self.slow = 0.0

    async def reachable(self) -> bool:
        return self.fails is None

    async def mask(self, route: str, cluster: str, body: bytes, *, seconds: float) -> MaskReply:
        self.asked.append((route, cluster, body))
        await asyncio.sleep(self.slow)
        if self.fails is not None:
            raise self.fails
        text = body.decode()
        for made, original in self.pairs.items():
            text = text.replace(json.dumps(original)[1:-1], made)
        return MaskReply(1, text.encode(), self.pairs)


@dataclass
class Running:
    """A gateway that serves on `url`."""

    url: str
    app: Gateway
    sender: FakeSender
    registry: FakeRegistry
    snapshots: Snapshots
    client: aiohttp.ClientSession
    masker: FakeMasker
    emitted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def post(self, body: bytes | dict[str, Any], **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.client.post(f"{self.url}/chat/completions", data=io.BytesIO(data), headers=fields)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [fields for emitted, fields in self.emitted if emitted == name]

    async def roll_out(self, rollout: Rollout, *, url: str, version: str = STUDENT) -> None:
        """Let the gateway see a rollout, and where the version is served."""
        self.registry.value = Snapshot(rollouts={rollout.route: rollout}, endpoints={version: url})
        await self.snapshots.refresh()


def live(revision: int = 1, **changes: Any) -> Rollout:
    return Rollout(route="support", revision=revision, live=STUDENT, **changes)


def shadowing(**changes: Any) -> Rollout:
    return Rollout(route="support", revision=1, challenger=STUDENT, stage=Stage.SHADOW, **changes)


def settings(
    teacher: str, *, second: str | None = None, key: str = "sk-operator", timeout: str = "5s", route: str = ""
) -> Config:
    """A route `support` that claims gpt-4o, with a student, no holdback and hardly an audit unless `route` says so."""
    teachers = "[one/gpt-4o]" if second is None else "[one/gpt-4o, two/other-model]"
    text = f"""
upstreams:
  one: {{base_url: "{teacher}", api_key: {key}, distillation_allowed: true, timeout: {timeout}, connect_timeout: 500ms}}
  two: {{base_url: "{second or teacher}", api_key: sk-second, distillation_allowed: true, timeout: {timeout}}}
engines:
  local: {{}}
routes:
  support:
    claims: [gpt-4o]
    teachers: {teachers}
    student: {{engine: local}}
    rollout: {{holdback: 0.0}}
    {route or "quality: {audit_rate: 1.0e-12}"}
"""
    return parse(text, {})


async def start(app: Any, listener: socket.socket) -> uvicorn.Server:
    """uvicorn without its ticking main loop, whose pauses would add up over the tests."""
    options = {"lifespan": "off", "log_config": None, "ws": "none", "access_log": False, "server_header": False}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listener])
    return server


async def stop(server: uvicorn.Server) -> None:
    for served in server.servers:
        served.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()
    async with asyncio.timeout(5):
        while server.server_state.connections or server.server_state.tasks:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def gateway(config: Config) -> AsyncIterator[Running]:
    sender, registry, events, upstream = FakeSender(), FakeRegistry(), Events(), AiohttpUpstream()
    snapshots = Snapshots(lambda: registry)
    emitted: list[tuple[str, dict[str, Any]]] = []
    events.subscribe(lambda name, fields: emitted.append((name, fields)))
    masker = FakeMasker()
    app = create_app(
        config, upstream=upstream, snapshots=snapshots, sender=sender, salt=SALT, masker=masker, events=events
    )
    await snapshots.refresh()
    listener = listen("127.0.0.1", 0)
    server = await start(app, listener)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as client:
            yield Running(url, app, sender, registry, snapshots, client, masker, emitted)
    finally:
        await app.shadows.join(timeout=5)
        await stop(server)
        await snapshots.close()
        await upstream.close()


REQUEST: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
