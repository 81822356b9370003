"""The engine's HTTP side: chat completions of the versions that are loaded."""

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from itertools import count

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from exporters.models.tool_text import Call, Reader
from gateway.engines import chat
from gateway.engines.answers import CONFIDENCE_HEADER, Answer, Usage, confidence
from gateway.engines.errors import EngineError, InvalidRequest, TooLarge, openai_body
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.protocol import Assessed, Done, Event, Piece, Started, Token
from router.events import Events

log = logging.getLogger("retort.engine")

MAX_BODY = 16 << 20
_JSON = "application/json"


def create_app(hosts: Hosts, *, events: Events) -> web.Application:
    """Routes: POST /versions/{id}/v1/chat/completions, GET /versions/{id}/v1/models, GET /healthz.

    Run it with `handler_cancellation`, so that a client that leaves ends its request's decoding.
    """
    engine = _Engine(hosts, events)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_errors])
    app.router.add_post("/versions/{version}/v1/chat/completions", engine.chat)
    app.router.add_get("/versions/{version}/v1/models", engine.models)
    app.router.add_get("/healthz", engine.healthz)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except EngineError as error:
        return _error_response(error)
    except web.HTTPException as error:
        refused = InvalidRequest(f"{request.method} {request.path}: {error.reason}.")
        return web.Response(status=error.status, body=openai_body(refused), content_type=_JSON)
    except ConnectionError:  # the client left; aiohttp's own concern
        raise
    except Exception:
        log.exception("engine.request_failed")
        return _error_response(EngineError())


def _error_response(error: EngineError) -> web.Response:
    headers = {"retry-after": "1"} if error.retryable else {}
    return web.Response(status=error.status, body=openai_body(error), content_type=_JSON, headers=headers)


class _Measured:
    """What one request came to, for the `engine.request` event, and how many there are, for `engine.inside`."""

    def __init__(self, hosted: Hosted, events: Events) -> None:
        self._hosted, self._events = hosted, events
        self.began = time.monotonic()
        self.outcome = "cancelled"
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.reasoning_tokens = 0
        self.queue_seconds: float | None = None
        self.ttft_seconds: float | None = None
        self.gaps: list[float] = []
        self._last = 0.0

    @contextmanager
    def place(self) -> Iterator[None]:
        """See Hosted.admit; then all that is known is told."""
        try:
            with self._hosted.admit():
                self._count()
                yield
        except EngineError as error:
            self.outcome = error.code
            raise
        finally:
            self._hosted.decoding -= self.queue_seconds is not None
            self._count()
            self._events.emit(
                "engine.request",
                version=self._hosted.version.id,
                outcome=self.outcome,
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self.completion_tokens,
                queue_seconds=self.queue_seconds,
                ttft_seconds=self.ttft_seconds,
                gaps=self.gaps,
                seconds=time.monotonic() - self.began,
            )

    def note(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Started):
            self.prompt_tokens, self.queue_seconds = event.prompt_tokens, event.queue_seconds
            self._hosted.decoding += 1
            self._count()
        elif isinstance(event, Piece | Done) and self.ttft_seconds is None:
            self.ttft_seconds = now - self.began
        elif isinstance(event, Piece):
            self.gaps.append(now - self._last)
        if isinstance(event, Done):
            self.completion_tokens, self.reasoning_tokens = event.completion_tokens, event.reasoning_tokens
        self._last = now

    def _count(self) -> None:
        inside, decoding = self._hosted.inside, self._hosted.decoding
        self._events.emit(
            "engine.inside", version=self._hosted.version.id, waiting=inside - decoding, decoding=decoding
        )

    def usage(self) -> Usage:
        return Usage(self.prompt_tokens or 0, self.completion_tokens or 0, self.reasoning_tokens)


class _Engine:
    def __init__(self, hosts: Hosts, events: Events) -> None:
        self._hosts = hosts
        self._events = events

    async def healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "versions": [h.version.id for h in self._hosts]})

    async def models(self, request: web.Request) -> web.Response:
        version = self._hosts[request.match_info["version"]].version
        card = {"id": version.id, "object": "model", "created": int(version.created_at), "owned_by": "retort"}
        return web.json_response({"object": "list", "data": [card]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        hosted = self._hosts[request.match_info["version"]]
        measured = _Measured(hosted, self._events)
        with measured.place():
            return await self._answer(request, hosted, measured)

    async def _answer(self, request: web.Request, hosted: Hosted, measured: _Measured) -> web.StreamResponse:
        try:
            asked = chat.read(await request.read(), tools=hosted.version.tools is not None)
        except web.HTTPRequestEntityTooLarge:
            raise TooLarge(f"The body is above {MAX_BODY >> 20} MiB.") from None
        answer = Answer(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=hosted.version.id,
            logprobs=asked.options.top_logprobs is not None,
            usage=asked.usage,
        )
        options = msgspec.structs.replace(asked.options, assess=asked.stream and hosted.selective)
        async with aclosing(hosted.generate(asked.messages, options)) as events:
            if asked.stream:
                return await _stream(request, answer, _Parts(asked.tools), events, measured)
            return await _whole(answer, _Parts(asked.tools), events, measured)


class _Parts:
    """An answer's text, and its calls where any tools were offered."""

    def __init__(self, tools: bool) -> None:
        self._reader = Reader() if tools else None
        self.calls = 0

    def of(self, event: Piece | Done) -> list[str | Call]:
        """What an event brings."""
        text = event.text if isinstance(event, Piece) else ""
        if self._reader is None:
            return [text] if text else []
        parts = self._reader.feed(text) if isinstance(event, Piece) else self._reader.end()
        self.calls += sum(isinstance(part, Call) for part in parts)
        return parts

    def events(self, answer: Answer, event: Piece | Done) -> bytes:
        """The same as a stream's events, and what is thought."""
        if self._reader is None:
            return answer.piece(event) if isinstance(event, Piece) else b""
        thought = answer.piece(msgspec.structs.replace(event, text="")) if isinstance(event, Piece) else b""
        numbers = count(self.calls)
        said = [
            answer.call(next(numbers), part) if isinstance(part, Call) else answer.piece(Piece(id=event.id, text=part))
            for part in self.of(event)
        ]
        return b"".join((thought, *said))


async def _whole(
    answer: Answer, parts: _Parts, events: AsyncGenerator[Event, None], measured: _Measured
) -> web.Response:
    found: list[str | Call] = []
    thoughts: list[str] = []
    tokens: list[Token] = []
    async for event in events:
        measured.note(event)
        if isinstance(event, Piece):
            found += parts.of(event)
            thoughts.append(event.reasoning)
            tokens.extend(event.tokens)
        elif isinstance(event, Done):
            measured.outcome = "ok"
            found += parts.of(event)
            body = answer.completion(found, "".join(thoughts), tokens, event, measured.usage())
            headers = {CONFIDENCE_HEADER: confidence(event.confidence)}
            return web.Response(body=body, content_type=_JSON, headers=headers)
    raise EngineError


async def _stream(
    request: web.Request,
    answer: Answer,
    parts: _Parts,
    events: AsyncGenerator[Event, None],
    measured: _Measured,
) -> web.StreamResponse:
    response: web.StreamResponse | None = None
    headers = {"cache-control": "no-store"}
    try:
        async for event in events:
            measured.note(event)
            if isinstance(event, Started):
                continue
            if isinstance(event, Assessed):
                headers[CONFIDENCE_HEADER] = confidence(event.confidence)
            if response is None:  # not before there is something to say: until then an error keeps its own status
                response = web.StreamResponse(headers=headers)
                response.content_type = "text/event-stream"
                await response.prepare(request)
                await response.write(answer.role())
            if isinstance(event, Piece | Done) and (brought := parts.events(answer, event)):
                await response.write(brought)
            if isinstance(event, Done):
                await response.write(answer.ending(event, measured.usage(), called=parts.calls > 0))
                measured.outcome = "ok"
                return response
    except EngineError as error:
        if response is None:
            raise
        measured.outcome = error.code
        await response.write(b"data: " + openai_body(error) + b"\n\n")
        return response
    except ConnectionError:
        if response is None:
            raise
        return response  # the client left: nobody's error
    raise EngineError
