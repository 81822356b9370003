"""Questions of an evaluation that go through the gateway: to the teacher again, and to the route's judge."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from collector.errors import CollectorError, JudgeFailed
from collector.judge import ANSWER_SECONDS, Ask, GatewayClient, Judge, gateway_url
from exporters.models import Generated, Messages
from retrainer.data.curate import Example
from retrainer.evaluation.evaluate import Report, evaluate
from retrainer.evaluation.metrics import Metric, bootstrap
from retrainer.progress import Meter, Progress, silent
from retrainer.scoring import Scorer
from router.config import Config
from router.policy_quality import JudgePolicy

T = TypeVar("T")
CONCURRENCY = 8  # questions at once

log = logging.getLogger("retort.retrainer")


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """By name, what the judge said; `failed`: questions without an answer, by reason."""

    metrics: dict[str, Metric] = {}
    failed: dict[str, int] = {}

    def with_more(self, other: "Judged") -> "Judged":
        """Both together; their metrics have different names."""
        failed = dict(Counter(self.failed) + Counter(other.failed))
        return Judged(metrics={**self.metrics, **other.metrics}, failed=failed)


class Gateway:
    """Where an evaluation asks. `ask`: in the gateway's place, for tests."""

    def __init__(self, config: Config, ask: Ask | None = None, *, progress: Progress = silent) -> None:
        self._config, self._ask, self._progress = config, ask, progress

    def run(self, work: Callable[[Ask], Awaitable[T]]) -> T | None:
        """Let `work` ask; None where the configuration doesn't say where the gateway is."""

        try:
            url = "" if self._ask is not None else gateway_url(self._config)
        except CollectorError as error:
            log.warning("retrainer.not_asked", extra={"error": str(error)})
            return None

        async def with_client() -> T:
            if self._ask is not None:
                return await work(self._ask)
            client = GatewayClient(url, seconds=ANSWER_SECONDS)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(with_client())

    def answers(
        self, route: str, prompts: Sequence[Messages], parameters: Sequence[Mapping[str, Any]] = ()
    ) -> list[str | None]:
        """What a route answers to each, with what its request holds besides; None where no answer came."""

        async def all_of(ask: Ask) -> list[str | None]:
            limit, meter, done = asyncio.Semaphore(CONCURRENCY), Meter(self._progress, "teacher", len(prompts)), 0

            async def one(messages: Messages, more: Mapping[str, Any]) -> str | None:
                nonlocal done
                async with limit:
                    try:
                        return await ask(route, messages, parameters=more)
                    except JudgeFailed:
                        return None
                    finally:
                        done += 1
                        meter(done)

            return list(await asyncio.gather(*map(one, prompts, parameters or [{}] * len(prompts))))

        return self.run(all_of) or [None] * len(prompts)


def teacher_again(gateway: Gateway, route: str | None, judged: Sequence[Example], scorer: Scorer) -> Report | None:
    """How well the teacher agrees with what it said before, on the records that it answers now; None without any, or
    without a route to ask. What doesn't come is left out: a gateway that is down must not lower the bar. So are
    requests with tools, which it would be asked without."""
    if route is None:
        return None
    judged = [e for e in judged if not e.asked.tools]
    said = gateway.answers(route, [e.messages for e in judged], [e.parameters for e in judged])
    known = [(e, text) for e, text in zip(judged, said, strict=True) if text is not None]
    if not known:
        return None

    def again(prompts: Sequence[Messages], **_: object) -> list[Generated]:
        return [Generated(text=text, finish_reason="stop", tokens=0) for _, text in known]

    return evaluate(again, [e for e, _ in known], scorer, max_new_tokens=0, phase="teacher")


def judged_pairs(
    gateway: Gateway, route: str, policy: JudgePolicy, judged: Sequence[Example], answers: Sequence[str]
) -> Judged:
    """The judge's comparison with the teacher, as live (`collector.judge`): 1 a win of the student, 0.5 a tie."""
    failed: Counter[str] = Counter()

    async def all_of(ask: Ask) -> list[float | None]:
        judge, limit = Judge(ask), asyncio.Semaphore(policy.concurrency)

        async def one(example: Example, answer: str) -> float | None:
            async with limit:
                try:
                    return await judge.value(
                        route,
                        policy,
                        request={"messages": example.messages},
                        student={"role": "assistant", "content": answer},
                        teacher={"role": "assistant", "content": example.answer},
                    )
                except JudgeFailed as error:
                    failed[error.reason] += 1
                    return None

        return list(await asyncio.gather(*(one(e, a) for e, a in zip(judged, answers, strict=True))))

    values = gateway.run(all_of) or []
    known = [(v, e.group or e.id, e.weight) for v, e in zip(values, judged, strict=False) if v is not None]
    found = {"judge": bootstrap(*map(list, zip(*known, strict=True)))} if known else {}
    return Judged(metrics=found, failed=dict(failed))
