"""What a frame becomes: observations (what a pure score can settle, at once), and an interaction, scrubbed, or its
quarantine without any text."""

import logging
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from collector.answers import Answers
from collector.errors import ScrubError, without_text
from collector.feedback import Reports
from collector.frames import Call, Exchange, Feedback, Happened, Header, texts_of
from collector.interactions import Interactions
from collector.kept import untouchable
from collector.log import EventLog, Later, Record, Records, Stream
from collector.observe import Answered, observations, owes_a_pair, students
from collector.pairs import pairs
from collector.parse import Completion, Unreadable, request, try_completion, try_request, words
from collector.quality import Quality, waits
from collector.record import Interaction
from collector.right_answers import RightAnswers
from collector.scrub import version
from collector.scrubbed import Pool, Scrubbed
from collector.sealing import Sealing
from router import Arm, Asked, Config, EventKind, Events, Evidence, Observation, RoutePolicy, asked, encode_evidence

log = logging.getLogger("retort.collector")

MOST_COUNTED = 50_000


class Assembled(msgspec.Struct, frozen=True):
    """What a frame becomes: `now`, records without any text, and `later`, each on its own: its interaction, its pairs
    that a model or a judge must be asked about. `then`: what is begun when all that came before it, but for what is
    still under way, can be found in the log."""

    now: Records
    later: tuple[Later, ...] = ()
    then: Callable[[], Later] | None = None


class Assembler:
    """Knows the configuration, the pool and who settles pairs; keeps one count, of the pairs that each route's traffic
    owed, and what waits for reports."""

    def __init__(
        self,
        config: Config,
        pool: Pool,
        events: Events,
        *,
        sealing: Sealing,
        quality: Quality | None = None,
        interactions: Interactions | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._pool = pool
        self._events = events
        self._sealing = sealing
        self._quality = quality or Quality(events)
        self._reports = Reports(config, events)
        self._answers = Answers(config, events)
        self._right = RightAnswers(config, pool, events, sealing=sealing, interactions=interactions)
        self._clock = clock
        self._eligible: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._waiting = 0  # bytes of exchanges whose texts are being scrubbed, or wait for it
        self._counted: OrderedDict[str, None] = OrderedDict()

    def restore(self, evidence: EventLog) -> None:
        """Find again what an earlier process left open. Raises LogError."""
        self._reports.restore(evidence, self._clock())

    def due(self) -> Records:
        """What is to be appended because its time has come."""
        self._right.expire(self._clock())
        return [_evidence(seen) for seen in self._reports.due(self._clock())]

    def begin(self, header: Header, body: bytes) -> Assembled:
        """Take a frame; must be called in the order of arrival. Never raises; `later` never raises either."""
        if isinstance(header, Happened):
            event = header.event
            if event.kind is EventKind.TICK:
                requests = {str(revision): n for revision, n in self._eligible.pop(event.route, {}).items()}
                event = msgspec.structs.replace(event, data={**event.data, "requests": requests})
            return Assembled([_evidence(event)])
        if isinstance(header, Feedback):
            return self._feedback(header, body)
        if owes_a_pair(header) and not header.imported and self._new(header.id):
            self._eligible[header.decision.route][header.decision.rollout_revision] += 1
        try:
            return self._exchange(header, body)
        except Exception as error:
            return Assembled([], (self._failed(header, error, texts_of(header, body)[0]),))

    def _new(self, exchange_id: str) -> bool:
        """Whether an exchange comes for the first time: a sender that was not told that it is durable repeats it."""
        if exchange_id in self._counted:
            return False
        self._counted[exchange_id] = None
        if len(self._counted) > MOST_COUNTED:
            self._counted.popitem(last=False)
        return True

    def _feedback(self, feedback: Feedback, body: bytes) -> Assembled:
        try:
            records, known = self._reports.take(feedback, body, self._clock())
        except Exception as error:
            # The edge of one report: the others go on.
            log.error("collector.feedback_failed", extra=without_text(error))
            self._events.emit("collector.feedback", route="", kind="", result="failed")
            return Assembled([])
        later = () if known is None else (self._settled(*known[:2], truth=known[2]),)
        return Assembled(records, later, self._right.take(feedback, body, self._clock()))

    def _exchange(self, exchange: Exchange, body: bytes) -> Assembled:
        route = exchange.decision.route
        self._events.emit("collector.imported" if exchange.imported else "collector.exchange", route=route)
        policy = self._config.routes.get(route)
        if policy is None:
            return Assembled([], (self._quarantined(exchange, "unknown_route", texts_of(exchange, body)[0]),))
        texts = texts_of(exchange, body)
        answers: list[Answered] = [
            (call, try_completion(text))
            for call, text in zip((exchange.served, *exchange.shadows), texts[1:], strict=True)
        ]
        if exchange.imported:
            self._waiting += len(body)  # its sender waits for it: none is shed
            return Assembled([], (self._kept(exchange, texts[0], answers, len(body)),))
        found = observations(exchange, answers, policy)
        compared, later = self._compare(exchange, texts[0], answers, policy)
        records = [_evidence(seen) for seen in (*found, *compared)]
        if exchange.capture and self._has_room(exchange, len(body)):
            right = self._right.begin(exchange.id)
            later = (self._kept(exchange, texts[0], answers, len(body)), *right, *later)
        return Assembled(records, later)

    def _compare(
        self, exchange: Exchange, raw: bytes, answers: list[Answered], policy: RoutePolicy
    ) -> tuple[list[Observation], tuple[Later, ...]]:
        """What its pairs say now, with its exposure; and later."""
        asking = try_request(raw) if students(exchange, answers) else None  # else there is nothing to compare
        found = pairs(exchange, answers, policy, asked(asking) if asking else Asked())
        exposed, known = self._reports.arrived(exchange, found, self._clock())
        if policy.quality.reference == "truth":
            return exposed, () if known is None else (self._settled(*known[:2], truth=known[2]),)
        if found and waits(policy.quality):
            return exposed, (self._settled(found, policy.quality, request=asking),)
        return [*self._quality.at_once(found, policy.quality), *exposed], ()

    async def _settled(self, *settling: Any, **more: Any) -> Records:
        return [_evidence(seen) for seen in await self._quality.later(*settling, **more)]

    def _has_room(self, exchange: Exchange, size: int) -> bool:
        """Whether its texts may still wait to be scrubbed: where more comes than can be, it is sampled, and pairs are
        the last to go. The observations are made of all."""
        most = self._config.scrub_backlog_mb << 20
        room = self._waiting == 0 or self._waiting + size <= (most if exchange.shadows else most // 2)
        if not room:
            self._events.emit("collector.capture_shed", route=exchange.decision.route)
            return False
        self._waiting += size
        return True

    async def _kept(self, exchange: Exchange, raw: bytes, answers: list[Answered], size: int) -> Records:
        kept = None
        try:
            made = await self._interaction(exchange, raw, answers)
            record = await self._sealing.record(made, at=self._kept_since(exchange))
            kept = made
            return [(Stream.INTERACTIONS, record)]
        except ScrubError as error:
            return await self._quarantined(exchange, str(error), raw)
        except Exception as error:
            return await self._failed(exchange, error, raw)
        finally:
            self._right.end(exchange.id, kept)
            self._waiting -= size

    async def _failed(self, exchange: Exchange, error: Exception, raw: bytes) -> Records:
        """At the edge of one exchange: the others go on."""
        log.error("collector.exchange_failed", extra=without_text(error))
        return await self._quarantined(exchange, type(error).__name__, raw)

    async def _interaction(self, exchange: Exchange, raw: bytes, answers: list[Answered]) -> Interaction:
        """Raises ScrubError for what can't be scrubbed."""
        try:
            asked = request(raw)
        except Unreadable as error:
            raise ScrubError(f"request {error}") from error
        if any(_unreadable(call, said) for call, said in answers):
            raise ScrubError("unreadable answer")
        values = [asked, *(words(said, reasoning=self._config.keeps_reasoning(c.upstream)) for c, said in answers)]
        policy = self._config.routes[exchange.decision.route]
        names = untouchable(asked, exchange.decision.route, policy) | {c.version for c, _ in answers if c.version}
        scrubbed = await self._pool.scrub(
            values,
            route=exchange.decision.route,
            cluster=exchange.cluster,
            untouchable=names,
            compared=frozenset(n for n, (call, _) in enumerate(answers, 1) if call.arm is Arm.STUDENT),
        )
        self._tell(exchange.decision.route, scrubbed, answers)
        clean_request, *clean_words = scrubbed.values
        untouched = scrubbed.values == values and not any(scrubbed.entities.values())
        subject = await self._sealing.name(exchange, asked, clean_request)
        return Interaction(
            id=exchange.id,
            at=exchange.at,
            route=exchange.decision.route,
            kind=exchange.decision.kind,
            arm=exchange.decision.arm,
            version=exchange.decision.version,
            propensity=exchange.decision.propensity,
            answered=exchange.decision.answered,
            eligible=exchange.decision.eligible,
            policy_version=exchange.decision.policy_version,
            rollout_revision=exchange.decision.rollout_revision,
            consent=exchange.consent or policy.capture.consent,
            scrubber=version(policy.capture),
            cluster=exchange.cluster,
            subject=subject,
            stream=exchange.stream,
            request=clean_request,
            answers=tuple(
                self._answers.of(call, said, clean, told=untouched)
                for (call, said), clean in zip(answers, clean_words, strict=True)
            ),
            failed=tuple(self._answers.of(call, None, {}) for call in exchange.failed),
            source=exchange.imported,
            drawn=scrubbed.drawn if policy.capture.right_answers else None,
        )

    def _tell(self, route: str, scrubbed: Scrubbed, answers: list[Answered]) -> None:
        scrubbed.tell(self._events, route)
        for position, entities in scrubbed.memorised.items():
            student = answers[position - 1][0].version
            for entity, count in entities.items():
                self._events.emit("collector.memorised", route=route, version=student, entity=entity, count=count)

    async def _quarantined(self, exchange: Exchange, reason: str, raw: bytes) -> Records:
        """The exchange's header alone, with the subject hashed that it or the request names: it holds no text."""
        log.warning("collector.quarantined", extra={"id": exchange.id, "reason": reason})
        self._events.emit("collector.quarantined", route=exchange.decision.route, reason=reason.split(":")[0])
        subject = await self._sealing.subject(exchange, try_request(raw) or {})
        value = msgspec.msgpack.encode(
            {"reason": reason, "exchange": msgspec.structs.replace(exchange, subject=subject or None)}
        )
        at, route = self._kept_since(exchange), exchange.decision.route
        return [(Stream.QUARANTINE, Record(id=exchange.id, key=route, at=at, value=value, subject=subject))]

    def _kept_since(self, exchange: Exchange) -> float:
        """What its retention is counted from: another system's old log is not too old when it comes."""
        return self._clock() if exchange.imported else exchange.at


def _unreadable(call: Call, said: Completion | None) -> bool:
    """Whether an answer came that can't be read. Of a stream that was deferred at its beginning none was waited for."""
    return call.error is None and said is None and not (call.deferred and not call.body_bytes)


def _evidence(record: Evidence) -> tuple[Stream, Record]:
    made = Record(id=record.id, key=record.route, at=record.at, value=encode_evidence(record))
    return Stream.EVIDENCE, made
