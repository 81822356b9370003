"""POST /v1/chat/completions, a plain ASGI endpoint: it is the hot path, and a framework would double its cost."""

import logging
import secrets
import time

from gateway.body import ClientGone, Receive, Scope, Send, parse, read
from gateway.errors import Internal, InvalidRequest, WrongMethod, status_of
from gateway.plan import Planner
from gateway.respond import respond
from gateway.serving import PATH, Parts, Serving

log = logging.getLogger("retort.gateway")


class Chat:
    """The endpoint. All that it needs is passed in; it keeps nothing of a request."""

    def __init__(self, planner: Planner, parts: Parts) -> None:
        self.planner = planner
        self.parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = time.perf_counter()
        request_id = f"req_{secrets.token_hex(12)}"
        try:
            if scope["method"] != "POST":
                raise WrongMethod(f"{PATH} answers to POST, not to {scope['method']}.")
            body = parse(await read(scope, receive), whole_up_to=self.planner.whole_up_to)
            plan = self.planner.plan(request_id, scope, body)
        except ClientGone:
            return
        except InvalidRequest as error:
            await respond(send, error, request_id)
            self._refused(error, began)
            return
        except Exception:
            log.exception("gateway.request_failed", extra={"request_id": request_id})
            await respond(send, Internal(), request_id)
            return
        await Serving(self.parts, plan, request_id, began).run(receive, send)

    def _refused(self, error: InvalidRequest, began: float) -> None:
        self.parts.events.emit(
            "gateway.request",
            route="",
            arm="",
            version=None,
            status=status_of(error),
            stream=False,
            outcome="refused",
            seconds=time.perf_counter() - began,
            ttft_seconds=None,
        )
