"""Open-loop load from the real `openai` client: requests start at their times, however slow the answers are."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import openai

from retort.sample.records import Package
from router import is_json

MODEL = "gpt-4o"
MAX_TOKENS = 24


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the client saw it. `served_by`: teacher, or a student's version; None where it failed."""

    number: int
    at: float
    served_by: str | None
    right: bool
    valid_json: bool
    milliseconds: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None


class Traffic:
    """Sends packages' questions to a base_url, a gateway's or an engine's version's, and keeps what came back."""

    def __init__(self, base_url: str) -> None:
        self._client = openai.AsyncOpenAI(base_url=base_url, api_key="demo", max_retries=0, timeout=60)
        self.sent: list[Sent] = []

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.close()

    async def run(
        self,
        packages: Iterable[Package],
        *,
        rate: float,
        until: Callable[[], bool] | None = None,
        headers: Mapping[str, str] | None = None,
        answers: dict[str, str] | None = None,
    ) -> None:
        """Send one request every 1/rate seconds until the packages end or `until()` is true; wait for the answers.

        `answers` takes each answer's text by package name.
        """
        pending: set[asyncio.Task[None]] = set()
        start = time.monotonic()
        for n, package in enumerate(packages):
            await asyncio.sleep(max(0.0, start + n / rate - time.monotonic()))
            if until and until():
                break
            task = asyncio.create_task(self._one(package, headers, answers))
            pending.add(task)
            task.add_done_callback(pending.discard)
        if pending:
            await asyncio.gather(*pending)

    async def capacity(self, packages: Iterable[Package], *, at_once: int) -> float:
        """Answers a second to the packages' questions, so many asked at once until all are. Raises
        `openai.OpenAIError` where one fails. Nothing of it is kept in `sent`."""
        waiting, answered, began = iter(packages), 0, time.monotonic()

        async def ask() -> None:
            nonlocal answered
            for package in waiting:
                await self._client.chat.completions.create(**_asked(package))
                answered += 1

        await asyncio.gather(*(ask() for _ in range(at_once)))
        return answered / (time.monotonic() - began)

    async def _one(self, package: Package, headers: Mapping[str, str] | None, answers: dict[str, str] | None) -> None:
        at, began = time.time(), time.monotonic()
        number = len(self.sent)
        try:
            raw = await self._client.chat.completions.with_raw_response.create(
                **_asked(package), extra_headers=dict(headers or {})
            )
            answer = raw.parse()
        except openai.OpenAIError as error:
            ms = (time.monotonic() - began) * 1000
            self.sent.append(
                Sent(
                    number=number,
                    at=at,
                    served_by=None,
                    right=False,
                    valid_json=False,
                    milliseconds=ms,
                    error=str(error),
                )
            )
            return
        text = answer.choices[0].message.content or ""
        if answers is not None:
            answers[package.package] = text
        self.sent.append(
            Sent(
                number=number,
                at=at,
                served_by=raw.headers.get("x-retort-served-by"),
                right=same_answer(text, package.answer),
                valid_json=is_json(text),
                milliseconds=(time.monotonic() - began) * 1000,
                prompt_tokens=answer.usage.prompt_tokens if answer.usage else 0,
                completion_tokens=answer.usage.completion_tokens if answer.usage else 0,
            )
        )


def _asked(package: Package) -> dict[str, Any]:
    return {"model": MODEL, "messages": package.messages, "max_tokens": MAX_TOKENS, "temperature": 0}


def same_answer(text: str, expected: str) -> bool:
    """Whether two JSON texts hold the same value."""
    return is_json(text) and json.loads(text) == json.loads(expected)
