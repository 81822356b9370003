"""A version that a vLLM server answers for, as the engine sees it: an Instance."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import aiohttp
import msgspec

from exporters.models import Confidence
from exporters.models.vocabulary import Vocabulary
from gateway.engines import vllm_wire as wire
from gateway.engines.errors import EngineError, VersionUnknown, WorkerGone
from gateway.engines.protocol import Event, Options, Started
from gateway.engines.telling import Telling, described, opens_thinking
from gateway.engines.vllm_server import Server

T = TypeVar("T")

_ANYTHING = [{"role": "user", "content": "?"}]

_KEEP_ALIVE = 3.0  # seconds: uvicorn closes an idle connection after 5, and a request would be lost on it


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the server: the `name` it serves the version under, how its tokens read and how sure it is.
    `context_length`: of a prompt and its answer, in tokens; None where the server doesn't tell."""

    name: str
    vocabulary: Vocabulary
    confidence: Confidence
    context_length: int | None


class VllmChild:
    """`release`: called once nobody asks any more; it ends the server, or unloads the adapter."""

    def __init__(self, server: Server, model: Model, release: Callable[[], Awaitable[None]]) -> None:
        self.gone = asyncio.Event()
        self._server = server
        self._model = model
        self._release = release
        self._next = 0
        # For the server's next word, and since when in monotonic seconds: ended when it is gone.
        self._waits: dict[asyncio.Timeout, float] = {}
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        self._asking_again: asyncio.Task[None] | None = None
        self._following = asyncio.create_task(self._follow())

    @property
    def pid(self) -> int | None:
        """See Instance."""
        return self._server.pid

    @property
    def place(self) -> object:
        """See Instance."""
        return self._server

    @property
    def ending(self) -> str:
        """See Instance."""
        return self._server.ending

    @property
    def silent(self) -> float:
        """See Instance. A server that answers others is not silent: this one's requests may wait for theirs. Nor is one
        whose words nobody reads."""
        if not self._waits:
            return 0.0
        return time.monotonic() - max(min(self._waits.values()), self._server.heard)

    def kill(self) -> None:
        """See Instance. It ends the server, and with it the other versions that are adapters there."""
        self._server.kill("it answered nothing")

    async def generate(self, messages: Sequence[dict[str, str]], options: Options) -> AsyncGenerator[Event, None]:
        """See Instance."""
        if self.gone.is_set():
            raise WorkerGone
        began, left = time.monotonic(), False
        self._next += 1
        answer = self._formed if options.schema else self._written
        try:
            async with contextlib.aclosing(answer(self._next, messages, options)) as events:
                async for event in events:
                    yield event
        except (WorkerGone, aiohttp.ClientError, OSError) as error:
            if not self.gone.is_set():
                self._server.failed()
            if isinstance(error, VersionUnknown):
                self._end()  # it is loaded anew, there or beside it
            if isinstance(error, WorkerGone):
                raise
            raise WorkerGone from error
        except (asyncio.CancelledError, GeneratorExit):
            left = True
            raise
        finally:
            if left and self._server.heard < began and not self.gone.is_set() and self._asking_again is None:
                self._asking_again = asyncio.create_task(self._ask_again())

    async def close(self) -> None:
        """See Instance."""
        self._end()
        if self._asking_again is not None:
            await self._asking_again
        await self._session.close()
        await self._release()
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following

    async def _ask_again(self) -> None:
        """Who asked gave up before a word came. One more token says whether the server hangs: it is silent until then,
        however soon clients give up."""
        try:
            async for _ in self._asked(_ANYTHING, Options(max_tokens=1)):
                pass
        except (EngineError, aiohttp.ClientError, OSError):
            pass  # the next to ask is told
        finally:
            self._asking_again = None

    async def _follow(self) -> None:
        await self._server.gone.wait()
        self._end()

    def _end(self) -> None:
        self.gone.set()
        for wait in self._waits:  # also those of a server that hangs: closing a session ends none
            if not wait.expired():
                wait.reschedule(0.0)

    async def _unless_gone(self, word: Awaitable[T]) -> T:
        """Wait for something of the server. Raises WorkerGone."""
        try:
            async with asyncio.timeout(None if not self.gone.is_set() else 0.0) as wait:
                self._waits[wait] = time.monotonic()
                try:
                    return await word
                finally:
                    del self._waits[wait]
        except TimeoutError:
            raise WorkerGone from None
        except RuntimeError as error:
            if not self.gone.is_set():
                raise
            raise WorkerGone from error  # so aiohttp says that the session has been closed since the last read

    async def _written(
        self, number: int, messages: Sequence[dict[str, str]], options: Options
    ) -> AsyncGenerator[Event, None]:
        telling: Telling | None = None
        async with contextlib.aclosing(self._asked(messages, options)) as chunks:
            async for chunk in chunks:
                if telling is None:
                    prompt = chunk.prompt_token_ids or []
                    telling = self._telling(
                        number, messages, options, opened=opens_thinking(self._model.vocabulary, prompt)
                    )
                    yield Started(id=number, prompt_tokens=len(prompt), queue_seconds=None)
                    for event in telling.begin():
                        yield event
                for choice in chunk.choices:
                    self._take(telling, choice.tokens, choice, options)
                for event in telling.events() if telling.finish_reason is None else ():
                    yield event
                if telling.stopped and all(choice.finish_reason is None for choice in chunk.choices):
                    break  # vLLM goes on, and need not
        if telling is None or telling.finish_reason is None:
            raise WorkerGone
        for event in telling.events():
            yield event

    async def _formed(
        self, number: int, messages: Sequence[dict[str, str]], options: Options
    ) -> AsyncGenerator[Event, None]:
        """An answer that must fit a schema comes at once, when it is complete: vLLM tells the log probabilities of the
        tokens that the schema left, and a student that had to be forced would seem sure. So the free model is asked
        how likely it finds the answer."""
        prompt: list[int] | None = None
        told: list[wire.Told] = []
        last = wire.Choice()
        async with contextlib.aclosing(self._asked(messages, options)) as chunks:
            async for chunk in chunks:
                if prompt is None:
                    prompt = chunk.prompt_token_ids or []
                    yield Started(id=number, prompt_tokens=len(prompt), queue_seconds=None)
                for choice in chunk.choices:
                    told += choice.tokens
                    last = choice if choice.finish_reason is not None else last
        if prompt is None or last.finish_reason is None:
            raise WorkerGone
        line = [*prompt, *(token.id for token in told)]
        if self._model.context_length is not None:  # with one token behind it; what no longer fits stays as it was told
            line = line[: self._model.context_length - 1]
        free = (await self._scored(line, options))[len(prompt) - 1 :]
        telling = self._telling(number, messages, options, opened=False)  # the schema allowed no thinking
        self._take(telling, [*free, *told[len(free) :]], last, options)
        for event in (*telling.begin(), *telling.events()):
            yield event

    def _telling(self, number: int, messages: Sequence[dict[str, str]], options: Options, *, opened: bool) -> Telling:
        return Telling(number, messages, options, confidence=self._model.confidence, opened=opened)

    def _take(self, telling: Telling, tokens: Sequence[wire.Told], choice: wire.Choice, options: Options) -> None:
        vocabulary, top = self._model.vocabulary, options.top_logprobs
        for at, token in enumerate(tokens):
            logprob = min(token.logprob, 0.0)
            if choice.ended and at == len(tokens) - 1:
                telling.take(logprob, None)
                break
            told = None if top is None else described(vocabulary, token.id, logprob, token.likeliest(top))
            telling.take(logprob, vocabulary.shown(token.id), told)
            if telling.stopped:
                telling.finish("stop")
                return
        if choice.finish_reason is not None and telling.finish_reason is None:
            telling.finish("length" if choice.finish_reason == "length" else "stop")

    async def _asked(self, messages: Sequence[dict[str, str]], options: Options) -> AsyncGenerator[wire.Chunk, None]:
        room = None if self._model.context_length is None else self._model.context_length - 1
        body = wire.request(self._model.name, messages, options, most=room)
        async with await self._post("/v1/chat/completions", body) as response:
            if not response.ok:
                raise wire.refused(response.status, await self._unless_gone(response.read()), options)
            async for chunk in wire.chunks(self._heard(response)):
                if chunk.error is not None:
                    raise wire.refusal(chunk.error, options)
                yield chunk

    async def _heard(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        while data := await self._unless_gone(response.content.readany()):
            self._server.heard = time.monotonic()
            yield data

    async def _post(self, path: str, body: dict[str, Any]) -> aiohttp.ClientResponse:
        return await self._unless_gone(self._session.post(f"{self._server.url}{path}", json=body))

    async def _scored(self, line: Sequence[int], options: Options) -> list[wire.Told]:
        async with await self._post("/v1/completions", wire.scoring(self._model.name, line, options)) as response:
            answered = await self._unless_gone(response.read())
            if not response.ok:
                raise wire.refused(response.status, answered, options)
            self._server.heard = time.monotonic()
            return wire.scores(answered, line)
