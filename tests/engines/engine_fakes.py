"""Fakes through the engine's seams: a scripted model, a registry in memory, a collector that acknowledges; and what
the tests of real workers share."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np

from collector.frames import ACK, PREFIX, Happened, unpack
from exporters.models import Confidence
from exporters.models.vocabulary import Vocabulary, byte_of_character
from gateway.engines.errors import InvalidRequest
from gateway.engines.form import Form, Forms
from gateway.engines.hosting import Hosted
from gateway.engines.protocol import Event, Generate, Loaded, Options
from gateway.engines.sampling import Row
from gateway.engines.schedule import Schedule
from router.errors import RegistryUnavailable, UnknownVersion
from router.evidence import EventKind, RouteEvent
from router.registry import Snapshot, Version
from router.tasks import TaskKind

END = 256
WRONG = ord("?")


class ScriptedRuntime:
    """A byte a token. It answers `answers[last message]`, and `?` after anything that it would not have said itself.

    `passes`: the tokens of every pass over a prompt. `steps`: how many requests took part in every step.
    """

    def __init__(
        self, answers: Mapping[str, bytes], *, context_length: int = 4096, count: int = 16, most: int = 10**6
    ) -> None:
        self.answers = answers
        self.context_length = self.most_answer = context_length
        self.rows = ScriptedRows(self, count, most)
        self.ends = frozenset({END})
        self.vocabulary = Vocabulary(
            {"added_tokens": [{"id": END, "content": "<end>", "special": True}]},
            lambda ids: bytes(ids).decode("latin-1"),
        )
        self.vocabulary.raw = lambda token: bytes([token]) if token < 256 else b"<end>"  # type: ignore[method-assign]
        self.passes: list[list[int]] = []
        self.steps: list[int] = []
        self.fails_on: str | None = None
        self.steps_fail = False

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        text = "".join(f"<{m['role']}>{m['content']}" for m in messages)
        if messages[-1]["content"] not in self.answers:
            raise InvalidRequest("the template refuses")
        return [*text.encode(), 0]

    def form(self, schema: str, *, opened: bool) -> Form:
        return _forms().of(schema, opened=opened)

    def next_token(self, tokens: Sequence[int]) -> int:
        line = bytes(t for t in tokens if t < 256)
        prompt, mark, said = line.partition(b"\0")
        if not mark:
            return WRONG
        answer = self.answers[prompt.decode("utf-8", "replace").rpartition(">")[2]]
        if not answer.startswith(said) or END in tokens:
            return WRONG
        return answer[len(said)] if len(said) < len(answer) else END


@cache
def _forms() -> Forms:
    """Of a byte a token."""
    alphabet = byte_of_character()
    end = {"id": END, "content": "<end>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer = {
        "version": "1.0",
        "added_tokens": [end | flags],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {"type": "BPE", "vocab": alphabet, "merges": []},
    }
    return Forms(json.dumps(tokenizer), END + 1, [END])


class ScriptedRows:
    """`most`: tokens that fit, over all rows; `peak`: what they held together."""

    def __init__(self, runtime: ScriptedRuntime, count: int, most: int) -> None:
        self.runtime = runtime
        self.most, self.peak = most, 0
        self.idle = [True] * count
        self.count = count
        self.held: list[list[int]] = [[] for _ in range(count)]

    def share(self, row: int, line: Sequence[int]) -> int:
        most = len(line) - 2
        best = max(next((i for i in range(most) if held[i : i + 1] != [line[i]]), most) for held in self.held)
        self.held[row] = list(line[:best])
        self.idle[row] = False
        return best

    def read(self, row: int, tokens: Sequence[int]) -> Row:
        assert len(tokens) > 1
        self.held[row] += tokens
        assert len(self.held[row]) <= self.runtime.context_length
        self.runtime.passes.append(list(tokens))
        said = bytes(t for t in self.held[row] if t < 256)
        if self.runtime.fails_on and self.runtime.fails_on.encode() in said:
            raise RuntimeError("the runtime broke")
        return self._logits(row)

    def step(self, tokens: Sequence[int]) -> list[Row]:
        if self.runtime.steps_fail:
            raise RuntimeError("the runtime broke")
        self.runtime.steps.append(len(tokens))
        for row, token in enumerate(tokens):
            self.held[row].append(token)
            assert len(self.held[row]) <= self.runtime.context_length
        self.peak = max(self.peak, sum(map(len, self.held)))
        return [self._logits(row) for row in range(len(tokens))]

    def swap(self, one: int, other: int) -> None:
        self.held[one], self.held[other] = self.held[other], self.held[one]
        self.idle[one], self.idle[other] = self.idle[other], self.idle[one]

    def room(self, tokens: int) -> bool:
        for row in range(self.count):
            if self.idle[row] and sum(map(len, self.held)) + tokens > self.most:
                self.held[row] = []
        return sum(map(len, self.held)) + tokens <= self.most

    def clear(self, row: int) -> None:
        self.idle[row] = True

    def _logits(self, row: int) -> Row:
        logits = np.full(257, -9.0, dtype=np.float32)
        logits[self.runtime.next_token(self.held[row])] = 9.0
        return logits


class ScriptedChild:
    """A worker's side of a ScriptedRuntime without a process: what `Hosted` asks of a child. `told`: every event."""

    def __init__(self, runtime: ScriptedRuntime, confidence: Confidence | None = None) -> None:
        self.told: list[Event] = []
        self.loaded = Loaded()
        self._schedule = Schedule(runtime, self.told.append, confidence=confidence)

    async def generate(self, messages: Sequence[dict[str, str]], options: Options) -> AsyncGenerator[Event, None]:
        at = len(self.told)
        self._schedule.take(Generate(id=1, messages=list(messages), options=options, at=time.monotonic()))
        while not self._schedule.idle or at < len(self.told):
            if at == len(self.told):
                self._schedule.turn()
                await asyncio.sleep(0)
            else:
                at += 1
                yield self.told[at - 1]


def version(version_id: str, *, engine: str = "local", artefact: str | None = None) -> Version:
    return Version(
        id=version_id,
        route="support",
        kind=TaskKind.CHAT,
        base="tiny",
        engine=engine,
        artefact=artefact or version_id,
        created_at=1.0,
    )


class FakeRegistry:
    """What an engine uses of the registry. `want` says what `wanted` answers."""

    def __init__(self) -> None:
        self.known: dict[str, Version] = {}
        self.want: list[str] = []
        self.endpoints: dict[str, str] = {}
        self.history: list[tuple[str, str]] = []
        self.broken = False

    def set(self, *versions: Version) -> None:
        self.known.update({v.id: v for v in versions})
        self.want = [v.id for v in versions]

    def _check(self) -> None:
        if self.broken:
            raise RegistryUnavailable

    def wanted(self, engine: str, most: int) -> Sequence[Version]:
        self._check()
        return [self.known[v] for v in self.want if self.known[v].engine == engine][:most]

    def version(self, version_id: str) -> Version:
        if version_id not in self.known:
            raise UnknownVersion
        return self.known[version_id]

    def snapshot(self) -> Snapshot:
        self._check()
        return Snapshot(rollouts={}, endpoints=dict(self.endpoints))

    def publish(self, version_id: str, *, engine: str, url: str) -> None:
        self._check()
        self.history.append(("publish", version_id))
        self.endpoints[version_id] = url

    def withdraw(self, version_id: str) -> None:
        self._check()
        self.history.append(("withdraw", version_id))
        self.endpoints.pop(version_id, None)

    def close(self) -> None:
        pass


class FakeCollector:
    """Acknowledges every frame, and keeps the events."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.events: list[RouteEvent] = []

    async def __aenter__(self) -> "FakeCollector":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def of(self, kind: EventKind, version_id: str) -> list[RouteEvent]:
        return [e for e in self.events if e.kind is kind and e.version == version_id]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head, body = PREFIX.unpack(await reader.readexactly(PREFIX.size))
                envelope = unpack(await reader.readexactly(head))
                await reader.readexactly(body)
                if isinstance(envelope.header, Happened):
                    self.events.append(envelope.header.event)
                writer.write(ACK.pack(envelope.sequence))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Tiny(msgspec.Struct, frozen=True):
    """`dense`: a Hugging Face folder; `onnx`: its fp32 export, so that torch can say what is right."""

    dense: Path
    onnx: Path


class Served(msgspec.Struct):
    """A worker behind the engine's HTTP server."""

    url: str
    hosted: Hosted
    client: aiohttp.ClientSession
    emitted: list[dict[str, Any]]

    async def post(self, body: Any, *, path: str = "/v1/chat/completions", **kwargs: Any) -> aiohttp.ClientResponse:
        kwargs |= {"data": body} if isinstance(body, bytes) else {"json": body}
        return await self.client.post(self.url + path, **kwargs)


async def until(condition: Callable[[], bool | Awaitable[bool]], *, seconds: float = 30.0) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)
