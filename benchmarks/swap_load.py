"""Load on a gateway, and what became of each answer: open loop, half of it streams, in conversations that last."""

import asyncio
import json
import random
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
import swap_student

SESSIONS = 200
TOKENS = (24, 64, 128)


class Answer(msgspec.Struct, kw_only=True):
    """`at`: when it was due, in monotonic seconds; `seconds`: from then to its end, `first` to a stream's first text.
    `verdict`: ok | failed | cut | mixed. `served`: teacher, or a version."""

    at: float
    session: int
    stream: bool
    served: str = ""
    verdict: str = "failed"
    seconds: float = 0.0
    first: float | None = None
    why: str = ""

    @property
    def arm(self) -> str:
        """teacher or student."""
        return "teacher" if self.served == "teacher" else "student"


class Load:
    """Asks `url`. `words`: by who serves, what must come; it may grow."""

    def __init__(self, client: aiohttp.ClientSession, url: str, words: Mapping[str, str]) -> None:
        self._client, self._url, self._words = client, url, words
        self._draw = random.Random(1)
        self.answers: list[Answer] = []
        self.inside: set[asyncio.Task[None]] = set()
        self.first_texts = 0

    async def run(self, rate: float, over: asyncio.Event) -> None:
        """`rate` a second, at random moments, whether those before are answered or not; until `over` is set."""
        due = time.monotonic()
        while not over.is_set():
            due += self._draw.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            session = self._draw.randrange(SESSIONS)
            asked = self.ask(due, session, stream=self._draw.random() < 0.5, tokens=self._draw.choice(TOKENS))
            self._begin(asked)

    def streams(self, count: int, tokens: int) -> None:
        """Begin so many long streams at once."""
        for number in range(count):
            self._begin(self.ask(time.monotonic(), number, stream=True, tokens=tokens))

    async def finish(self) -> None:
        """Wait for what is asked."""
        while self.inside:
            await asyncio.gather(*self.inside)

    def _begin(self, asked: Any) -> None:
        task = asyncio.create_task(asked)
        self.inside.add(task)
        task.add_done_callback(self.inside.discard)

    async def ask(self, due: float, session: int, *, stream: bool, tokens: int) -> None:
        """One request; what became of it goes to `answers`."""
        answer = Answer(at=due, session=session, stream=stream)
        body = {"model": "ways", "messages": [{"role": "user", "content": f"{session}: {swap_student.PROMPT}"}]}
        body |= {"max_tokens": tokens, "temperature": 0, "stream": stream}
        try:
            async with self._client.post(self._url, json=body, headers={"x-retort-session": str(session)}) as response:
                answer.served = response.headers.get("x-retort-served-by", "")
                if response.status != 200:
                    answer.why = f"status {response.status}: {(await response.text())[:200]}"
                elif stream:
                    await self._stream(response, answer, tokens)
                else:
                    self._whole(await response.json(), answer, tokens)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            answer.why = f"{type(error).__name__}: {error}"
        answer.seconds = time.monotonic() - due
        self.answers.append(answer)

    def _whole(self, body: Mapping[str, Any], answer: Answer, tokens: int) -> None:
        choice = body["choices"][0]
        self._judge(answer, choice["message"]["content"], {body["model"]}, tokens, ended=bool(choice["finish_reason"]))

    async def _stream(self, response: aiohttp.ClientResponse, answer: Answer, tokens: int) -> None:
        text, models, finished, done = "", set(), False, False
        async for line in response.content:
            if line.startswith(b"data: [DONE]"):
                done = True
            elif line.startswith(b"data: "):
                chunk = json.loads(line.removeprefix(b"data: "))
                if "error" in chunk:
                    answer.verdict, answer.why = "cut", f"{chunk['error'].get('code')}: {chunk['error']['message']}"
                    return
                models.add(chunk["model"])
                for choice in chunk["choices"]:
                    text += choice["delta"].get("content") or ""
                    finished = finished or bool(choice["finish_reason"])
                if text and answer.first is None:
                    answer.first = time.monotonic() - answer.at
                    self.first_texts += 1
        self._judge(answer, text, models, tokens, ended=finished and done)

    def _judge(self, answer: Answer, text: str, models: set[str], tokens: int, *, ended: bool) -> None:
        whole = swap_student.said(self._words.get(answer.served, "?"), tokens)
        if ended and text == whole and models == {answer.served}:
            answer.verdict = "ok"
        elif not ended and whole.startswith(text) and models <= {answer.served}:
            answer.verdict, answer.why = "cut", f"ended after {len(text)} of {tokens}"
        else:
            answer.verdict, answer.why = "mixed", f"{answer.served} said {text!r} as {sorted(models)}"
