"""Asks the teacher, through the gateway: so its limits and its failover hold here too, and no key is needed."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
import msgspec

from collector.record import Usage
from retort.imports.foreign import Unusable, answer_of, usage_of

SECONDS = 180.0  # for one answer
ATTEMPTS = 7
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds; doubled after each failure, times 0.5 to 1.5 (Brooker 2015: jitter)
_AGAIN = (408, 409, 425, 429)  # and all of 5xx

Message = Mapping[str, Any]
Pause = Callable[[float], Awaitable[None]]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. `message`: the assistant's, as the API has it."""

    message: dict[str, Any]
    finish_reason: str | None
    model: str
    system_fingerprint: str | None
    usage: Usage | None


class Unreachable(Exception):
    """No gateway answers at this address."""


class Teacher:
    """Asks one route. `base_url`: the gateway's, without /v1. `calls`, `used`: what it has cost so far."""

    def __init__(
        self,
        base_url: str,
        route: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        # trust_env: a proxy of the environment is for the outside, and the gateway is on this machine.
        self._client = httpx.AsyncClient(base_url=base_url, timeout=SECONDS, trust_env=False, transport=transport)
        self._route, self._pause = route, pause
        self.calls = 0
        self.used = Usage()

    async def __call__(self, messages: Sequence[Message], **parameters: Any) -> Reply:
        """The answer. What may pass is tried again, at longer and longer intervals or when the provider says.

        Raises Unusable (`http_4xx`, `failed`, `timeout`, `no_answer`), Unreachable.
        """
        body = {"model": self._route, "messages": list(messages), **parameters}
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                reply = await self._client.post("/v1/chat/completions", json=body, headers={"x-retort-consent": "no"})
            except httpx.ConnectError as error:
                if last:
                    raise Unreachable(f"no gateway answers at {self._client.base_url}") from error
                await self._pause(_pause(attempt))
                continue
            except httpx.HTTPError as error:
                if last:
                    raise Unusable("timeout" if isinstance(error, httpx.TimeoutException) else "failed") from error
                await self._pause(_pause(attempt))
                continue
            if reply.status_code == 200:
                return self._read(reply)
            again = reply.status_code in _AGAIN or reply.status_code >= 500
            if not again or last:
                raise Unusable("failed" if again else f"http_{reply.status_code}")
            await self._pause(_pause(attempt, reply.headers.get("retry-after")))
        raise AssertionError("unreachable")  # the last attempt returns or raises

    def _read(self, reply: httpx.Response) -> Reply:
        try:
            data = reply.json()
        except ValueError as error:
            raise Unusable("no_answer") from error
        if not isinstance(data, dict):
            raise Unusable("no_answer")
        message, finish_reason = answer_of(data)
        usage = usage_of(data.get("usage"))
        self.calls += 1
        if usage:
            self.used = Usage(
                prompt_tokens=self.used.prompt_tokens + usage.prompt_tokens,
                completion_tokens=self.used.completion_tokens + usage.completion_tokens,
            )
        return Reply(
            message=message,
            finish_reason=finish_reason,
            model=str(data.get("model") or ""),
            system_fingerprint=str(data["system_fingerprint"]) if data.get("system_fingerprint") else None,
            usage=usage,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def _pause(attempt: int, asked: str | None = None) -> float:
    """Seconds before the next attempt; `asked`: by the provider, where it named a number."""
    try:
        return min(max(float(asked or ""), 0.0), LONGEST_PAUSE)
    except ValueError:
        return min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
