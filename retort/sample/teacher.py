"""A stand-in for a paid API: it speaks OpenAI's protocol and answers one narrow task from real records.

It shows the loop without a provider's key. A speed-up measured against it measures nothing but its own `latency`.
"""

import asyncio
import json
import time
import uuid
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from retort.sample.records import answer

TOKENS_PER_CHARACTER = 0.25


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool = False
    stream_options: _StreamOptions | None = None


def create_app(*, latency: float = 0.6) -> web.Application:
    """The server. `latency`: seconds from a request to its answer (a stream's first word comes after half of it)."""
    teacher = _Teacher(latency)
    app = web.Application(client_max_size=32 << 20)
    app.router.add_post("/v1/chat/completions", teacher.chat)
    app.router.add_get("/v1/models", teacher.models)
    app.router.add_get("/healthz", teacher.health)
    return app


class _Teacher:
    def __init__(self, latency: float) -> None:
        self._latency = latency

    async def chat(self, request: web.Request) -> web.StreamResponse:
        try:
            body = msgspec.json.decode(await request.read(), type=_Request)
        except msgspec.MsgspecError as error:
            return _error(400, f"the request is no chat completion: {error}")
        question = next((_text(m) for m in reversed(body.messages) if m.role == "user"), None)
        if question is None:
            return _error(400, "the request holds no message of the role user")
        text = answer(question)
        usage = _usage(body.messages, text)
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": "fp_sample_teacher",
        }
        if body.stream:
            return await self._stream(request, body, head, text, usage)
        await asyncio.sleep(self._latency)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def _stream(
        self, request: web.Request, body: _Request, head: dict[str, Any], text: str, usage: dict[str, int]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await asyncio.sleep(self._latency / 2)
        pieces = [text[i : i + 4] for i in range(0, len(text), 4)]
        deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
        deltas += [({"content": piece}, None) for piece in pieces]
        deltas.append(({}, "stop"))
        with suppress(ConnectionResetError):  # a client that leaves
            for delta, finish in deltas:
                choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
                await _event(response, {**head, "object": "chat.completion.chunk", "choices": [choice]})
                await asyncio.sleep(self._latency / 2 / len(deltas))
            if body.stream_options and body.stream_options.include_usage:
                await _event(response, {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        return response

    async def models(self, request: web.Request) -> web.Response:
        model = {"id": "sample-teacher", "object": "model", "created": 0, "owned_by": "retort"}
        return web.json_response({"object": "list", "data": [model]})

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(str(part.get("text", "")) for part in message.content)
    return message.content or ""


def _usage(messages: list[_Message], text: str) -> dict[str, int]:
    prompt = sum(4 + int(len(_text(m)) * TOKENS_PER_CHARACTER) for m in messages)
    completion = 1 + int(len(text) * TOKENS_PER_CHARACTER)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(data).encode() + b"\n\n")
