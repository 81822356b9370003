"""The right answers that clients report, on their way into the log: scrubbed beside the record of their request, so
that both have the same surrogates, and sealed with the same key.

None is kept without that record: whose texts may not be kept, could not be scrubbed, expired or were erased has none.
A report that comes before its exchange waits for it for EARLY_SECONDS, in memory, where a killed collector loses it.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import msgspec

from collector.errors import LogError, RecordUnreadable, ScrubError, without_text
from collector.feedback import EARLY_SECONDS, MOST_EARLY
from collector.frames import Feedback, Reported
from collector.interactions import Interactions
from collector.kept import untouchable
from collector.log import Later, Record, Records, Stream
from collector.record import Interaction, RightAnswer, encode
from collector.scrub import version
from collector.scrubbed import Beside, Pool
from collector.sealing import FIRST_RETRY, LONGEST_RETRY, Sealing
from collector.truth import right_answer
from router import Config, Events

log = logging.getLogger("retort.collector")

Making = asyncio.Future[Interaction | None]


class _Early(msgspec.Struct, frozen=True):
    feedback: Feedback
    text: str
    until: float


class RightAnswers:
    """`interactions`: where a request's record is looked for when it is not being made right now."""

    def __init__(
        self, config: Config, pool: Pool, events: Events, *, sealing: Sealing, interactions: Interactions | None
    ) -> None:
        self._config = config
        self._pool = pool
        self._events = events
        self._sealing = sealing
        self._interactions = interactions
        self._making: dict[str, Making] = {}  # by request
        self._early: OrderedDict[str, _Early] = OrderedDict()  # by request

    def take(self, feedback: Feedback, body: bytes, now: float) -> Callable[[], Later] | None:
        """What keeps a report's right answer, to be begun when all that came before it is in the log, but for what is
        being made now. None where there is nothing to keep."""
        policy = self._config.routes.get(feedback.route)
        wanted = policy is not None and policy.capture.right_answers
        if not wanted or not feedback.capture or not feedback.truth_bytes:
            return None
        try:
            text = body[: feedback.truth_bytes].decode()
        except UnicodeDecodeError:
            self._count(feedback, "invalid")
            return None
        making = self._making.get(feedback.request_id)
        if making is not None:
            return partial(self._made, feedback, text, making)
        before = self._early.pop(feedback.request_id, None)
        early = _Early(feedback, text, now + EARLY_SECONDS)
        if before is not None and before.feedback.at > feedback.at:
            early = before  # the newest one counts
        self._early[feedback.request_id] = early
        if len(self._early) > MOST_EARLY:
            self._count(self._early.popitem(last=False)[1].feedback, "unknown")
        return partial(self._found, early)

    def begin(self, request_id: str) -> tuple[Later, ...]:
        """The record of an exchange is being made, and `end` will be told of it. What keeps the right answer to it, if
        that came first."""
        making = self._making.setdefault(request_id, asyncio.get_running_loop().create_future())
        early = self._early.pop(request_id, None)
        return () if early is None else (self._made(early.feedback, early.text, making),)

    def end(self, request_id: str, record: Interaction | None) -> None:
        """What became of it; None where it is not kept."""
        making = self._making.pop(request_id, None)
        if making is not None and not making.done():
            making.set_result(record)

    def expire(self, now: float) -> None:
        """Forget what has waited long enough."""
        while self._early and next(iter(self._early.values())).until < now:
            self._count(self._early.popitem(last=False)[1].feedback, "unknown")

    async def _made(self, feedback: Feedback, text: str, making: Making) -> Records:
        record = await making
        if record is None:
            self._count(feedback, "unknown")
            return []
        return await self._kept(feedback, text, record)

    async def _found(self, early: _Early) -> Records:
        """Of a record that is in the log; else it waits on, for its exchange."""
        feedback = early.feedback
        record = await self._find(feedback)
        if record is None or self._early.get(feedback.request_id) is not early:
            return []
        del self._early[feedback.request_id]
        return await self._kept(feedback, early.text, record)

    async def _find(self, feedback: Feedback) -> Interaction | None:
        """Waits as long as the log can't be read: nothing is acknowledged before, so nothing is lost."""
        wait = FIRST_RETRY
        while self._interactions is not None:
            try:
                return await asyncio.to_thread(self._interactions.find, feedback.route, feedback.request_id)
            except RecordUnreadable as error:
                log.error("collector.feedback_failed", extra={"error": str(error)})
                return None
            except LogError as error:
                if wait == FIRST_RETRY:
                    log.error("collector.log_failed", extra={"error": str(error)})
                self._events.emit("collector.log_failed")
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_RETRY)
        return None

    async def _kept(self, feedback: Feedback, text: str, record: Interaction) -> Records:
        try:
            answer = await self._scrubbed(feedback, text, record)
        except ScrubError as error:
            return self._quarantined(feedback, record, str(error))
        except Exception as error:  # the edge of one report: the others go on
            log.error("collector.feedback_failed", extra=without_text(error))
            return self._quarantined(feedback, record, type(error).__name__)
        sealed = encode(answer, await self._sealing.key(record.subject, at=feedback.at))
        kept = Reported(
            id=feedback.id, at=feedback.at, route=feedback.route, request_id=feedback.request_id, answer=sealed
        )
        self._count(feedback, "kept")
        return [
            (Stream.FEEDBACK, self._record(f"{feedback.id}:answer", feedback, record, msgspec.msgpack.encode(kept)))
        ]

    async def _scrubbed(self, feedback: Feedback, text: str, record: Interaction) -> RightAnswer:
        """Raises ScrubError."""
        policy = self._config.routes[feedback.route]
        scrubbed = await self._pool.scrub(
            [right_answer(text).message],
            route=feedback.route,
            cluster=record.cluster,
            untouchable=untouchable(record.request, feedback.route, policy)
            | {answer.version for answer in record.answers if answer.version},
            beside=Beside((record.request, *(answer.message for answer in record.answers)), record.drawn),
        )
        scrubbed.tell(self._events, feedback.route)
        return RightAnswer(
            request_id=feedback.request_id,
            at=feedback.at,
            message=scrubbed.values[0],
            scrubber=version(policy.capture),
        )

    def _quarantined(self, feedback: Feedback, record: Interaction, reason: str) -> Records:
        """The report's header alone: it holds no text."""
        log.warning("collector.quarantined", extra={"id": feedback.id, "reason": reason})
        self._events.emit("collector.quarantined", route=feedback.route, reason=reason.split(":")[0])
        self._count(feedback, "quarantined")
        value = msgspec.msgpack.encode({"reason": reason, "feedback": feedback})
        return [(Stream.QUARANTINE, self._record(feedback.id, feedback, record, value))]

    def _record(self, name: str, feedback: Feedback, record: Interaction, value: bytes) -> Record:
        return Record(id=name, key=feedback.route, at=feedback.at, value=value, subject=record.subject)

    def _count(self, feedback: Feedback, result: str) -> None:
        self._events.emit("collector.feedback", route=feedback.route, kind="right_answer", result=result)
