"""The engine's HTTP side, and chat completions of the versions that are loaded."""

import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from exporters.models.tool_text import Call, Reader
from gateway.engines import bodies, chat
from gateway.engines.answers import CONFIDENCE_HEADER, Answer, confidence
from gateway.engines.encoders import Encoders
from gateway.engines.errors import EngineError, InvalidRequest, openai_body
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.measured import Measured
from gateway.engines.protocol import Assessed, Done, Event, Piece, Started, Token
from router.events import Events

log = logging.getLogger("retort.engine")

_JSON = "application/json"


def create_app(hosts: Hosts, *, events: Events) -> web.Application:
    """Routes: POST /versions/{id}/v1/chat/completions, .../embeddings, .../rerank, GET .../models, GET /healthz.

    Run it with `handler_cancellation`, so that a client that leaves ends its request's decoding.
    """
    engine = _Engine(hosts, events)
    app = web.Application(client_max_size=bodies.MAX_BODY, middlewares=[_errors])
    app.router.add_post("/versions/{version}/v1/chat/completions", engine.chat)
    encoders = Encoders(hosts, events)
    app.router.add_post("/versions/{version}/v1/embeddings", encoders.embed)
    app.router.add_post("/versions/{version}/v1/rerank", encoders.rank)
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
        measured = Measured(hosted, self._events, operation="chat")
        with measured.counted("generate"):
            return await self._answer(request, hosted, measured)

    async def _answer(self, request: web.Request, hosted: Hosted, measured: Measured) -> web.StreamResponse:
        asked = chat.read(await bodies.read(request), tools=hosted.version.tools is not None)
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
    answer: Answer, parts: _Parts, events: AsyncGenerator[Event, None], measured: Measured
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
    measured: Measured,
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
