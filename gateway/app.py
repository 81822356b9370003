"""The gateway's ASGI application: the hot endpoint in front, FastAPI for everything that isn't hot."""

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from exporters.prometheus import render
from gateway.body import Receive, Scope, Send
from gateway.capture import Capture, Sender
from gateway.chat import Chat
from gateway.errors import NotFound, WrongMethod, as_openai, status_of
from gateway.feedback import FEEDBACK_PATH, FeedbackIn
from gateway.hard_stop import HardStop
from gateway.masking import Masker
from gateway.plan import Planner
from gateway.routes import Routes
from gateway.serving import PATH, Parts
from gateway.shadow import Shadows
from gateway.snapshots import Snapshots
from gateway.upstream import Upstream
from router import Config, Events


class Gateway(FastAPI):
    """FastAPI, but for POST /v1/chat/completions and /v1/feedback, which never enter its middleware.

    `shadows`: what must be waited for before the process ends. `draining`: readiness says no from then on. `awaited`:
    who masks, until it has been reached once; what happens to it later makes no worker unready.
    """

    def __init__(self, chat: Chat, feedback: FeedbackIn, *, models: list[str], awaited: Masker | None) -> None:
        super().__init__(title="Retort", docs_url=None, redoc_url=None, openapi_url=None)
        self._chat = chat
        self._feedback = feedback
        self._models = models
        self._since = int(time.time())
        self.shadows = chat.parts.shadows
        self.draining = False
        self._awaited = awaited
        self.add_api_route("/v1/models", self._list, methods=["GET"])
        self.add_api_route("/healthz", self._alive, methods=["GET"])
        self.add_api_route("/readyz", self._ready, methods=["GET"])
        self.add_api_route("/metrics", _metrics, methods=["GET"])
        self.add_exception_handler(HTTPException, _http_error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] == "http" and scope["path"] == PATH:
            await self._chat(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == FEEDBACK_PATH:
            await self._feedback(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _list(self) -> dict[str, Any]:
        models = [
            {"id": name, "object": "model", "created": self._since, "owned_by": "retort"} for name in self._models
        ]
        return {"object": "list", "data": models}

    async def _alive(self) -> dict[str, str]:
        """Says only that this process answers: what it depends on is nobody's reason to kill it."""
        return {"status": "ok"}

    async def _ready(self) -> Response:
        """Whether new requests should come here. An upstream that is down makes no worker unready."""
        if self.draining:
            return JSONResponse({"status": "draining"}, status_code=503)
        if self._awaited is not None and not await self._awaited.reachable():
            return JSONResponse({"status": "starting", "awaited": "masking"}, status_code=503)
        self._awaited = None
        return JSONResponse({"status": "ready"})


def create_app(
    config: Config,
    *,
    upstream: Upstream,
    snapshots: Snapshots,
    sender: Sender,
    salt: bytes,
    masker: Masker,
    events: Events,
    clock: Callable[[], float] = time.time,
) -> Gateway:
    """Wire the data plane. Starts nothing; whoever passes the parts in also closes them."""
    routes = Routes(config)
    capture = Capture(sender, events)
    hard_stop = HardStop(sender, events, clock=clock)
    parts = Parts(
        upstream=upstream,
        capture=capture,
        shadows=Shadows(upstream, capture, hard_stop, events),
        hard_stop=hard_stop,
        events=events,
        clock=clock,
    )
    chat = Chat(Planner(routes, snapshots, hard_stop, salt=salt, masker=masker, events=events), parts)
    masks = any(policy.capture.mask_teachers for policy in config.routes.values())
    return Gateway(
        chat,
        FeedbackIn(routes, sender, events, clock=clock),
        models=routes.models,
        awaited=masker if masks else None,
    )


def _metrics() -> Response:
    """Not async: reading all processes' files takes a while, so it has a thread."""
    page, content_type = render()
    return Response(page, media_type=content_type)


async def _http_error(request: Request, error: Exception) -> Response:
    known = WrongMethod(f"{request.url.path} does not answer to {request.method}.")
    if isinstance(error, HTTPException) and error.status_code == 404:
        return JSONResponse(as_openai(NotFound(f"There is nothing at {request.url.path}.")), status_code=404)
    return JSONResponse(as_openai(known), status_code=status_of(known))
