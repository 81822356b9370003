"""A vLLM server's side of the wire, in this process: what it answers, and how it fails, is told to it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

END = 256


class FakeVllm:
    """A byte a token; it answers `answer` to anything. `mode`: how requests end: well, hangs (says nothing), dies (the
    connection is cut after `after` tokens), breaks (an error in the stream after `after` tokens).

    `answers`: of adapters, by their artefact's name; `bodies`: of the requests; `left`: how many clients went before
    their answer was complete; `adapters`: name to path; `calls`: of the endpoints for adapters, in order.
    """

    def __init__(self, name: str = "v1", answer: bytes = b"red as a rose") -> None:
        self.name = name
        self.answer = answer
        self.answers: dict[str, bytes] = {}
        self.mode = "well"
        self.after = 3
        self.wait = 0.0  # before the first word
        self.pause = 0.0
        self.logprob = -0.25
        self.alternatives: list[tuple[int, float]] = []
        self.health = 200
        self.tells = True  # what it serves
        self.keeps: int | None = None  # the status by which it refuses to unload
        self.cut = False  # it loads adapters, and doesn't get to say so
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.bodies: list[dict[str, Any]] = []
        self.left = 0
        self.adapters: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.url = ""

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["FakeVllm"]:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._score)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=self.health)

    async def _models(self, _: web.Request) -> web.Response:
        if not self.tells:
            return web.json_response({"error": {"message": "it broke", "code": 500}}, status=500)
        cards = [{"id": self.name, "parent": None, "max_model_len": 64}]
        cards += [{"id": name, "parent": self.name} for name in self.adapters]
        return web.json_response({"object": "list", "data": cards})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.refusal is not None:
            return web.json_response({"error": self.refusal[1]}, status=self.refusal[0])
        if body["model"] not in (self.name, *self.adapters):
            return web.json_response({"error": {"message": "no such model", "code": 404}}, status=404)
        response = web.StreamResponse()
        response.content_type = "text/event-stream"
        await response.prepare(request)
        try:
            if self.mode == "hangs":
                await asyncio.sleep(60)
            await asyncio.sleep(self.wait)
            await self._tell(response, self._choice({"role": "assistant"}), prompt_token_ids=[1, 2, 3])
            _, _, adapter = body["model"].partition(".")
            tokens = [*self.answers.get(adapter.partition(".")[0], self.answer), END]
            for at, token in enumerate(tokens):
                if self.mode == "dies" and at == self.after:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                if self.mode == "breaks" and at == self.after:
                    await self._send(response, {"error": {"message": "it broke: secret", "code": 500}})
                    break
                await asyncio.sleep(self.pause)
                reason = "stop" if token == END else "length" if at + 1 == body.get("max_tokens") else None
                await self._tell(response, self._choice({"content": "?"}, token=token, reason=reason))
                if reason:
                    break
            await response.write(b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        return response

    def _choice(self, delta: dict[str, str], *, token: int | None = None, reason: str | None = None) -> dict[str, Any]:
        top = [(token, self.logprob), *self.alternatives]
        told = {
            "token": f"token_id:{token}",
            "logprob": self.logprob,
            "top_logprobs": [{"token": f"token_id:{i}", "logprob": p} for i, p in top],
        }
        logprobs = None if token is None else {"content": [told]}
        return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason, "stop_reason": None}

    async def _tell(self, response: web.StreamResponse, choice: dict[str, Any], **more: Any) -> None:
        await self._send(response, {"id": "x", "choices": [choice], **more})

    async def _send(self, response: web.StreamResponse, data: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps(data).encode() + b"\n\n")

    async def _score(self, request: web.Request) -> web.Response:
        line = (await request.json())["prompt"]
        told = [None, *({str(i): {"logprob": -2.0, "rank": 2}, "33": {"logprob": -1.0, "rank": 1}} for i in line[1:])]
        return web.json_response({"choices": [{"text": "", "prompt_logprobs": told}]})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.calls.append(("load", body["lora_name"]))
        if self.refusal is not None:
            return web.json_response({"error": self.refusal[1]}, status=self.refusal[0])
        assert body["lora_name"] not in self.adapters
        assert sorted(file.name for file in Path(body["lora_path"]).iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        self.adapters[body["lora_name"]] = body["lora_path"]
        if self.cut:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text="loaded")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        self.calls.append(("unload", name))
        if self.keeps is not None:
            return web.json_response({"error": {"message": "the adapter is in use"}}, status=self.keeps)
        if name not in self.adapters:
            return web.json_response({"error": {"message": "cannot be found"}}, status=404)
        del self.adapters[name]
        return web.Response(text="unloaded")


def write_tokenizer(folder: Path) -> None:
    """A byte a token, as FakeVllm's; a token that ends."""
    from exporters.models.vocabulary import byte_of_character

    tokenizer = {
        "added_tokens": [{"id": END, "content": "<end>", "special": True}],
        "decoder": {"type": "ByteLevel"},
        "model": {"vocab": byte_of_character()},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
