"""What a frame becomes: observations (always, and at once), and an interaction, scrubbed, or its quarantine without
any text."""

import logging
from collections import Counter, defaultdict
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

import msgspec

from collector.errors import ScrubError, without_text
from collector.frames import Call, Exchange, Happened, Header
from collector.log import Record, Stream
from collector.observe import Answered, observations, owes_a_pair
from collector.parse import Completion, Unreadable, completion, request
from collector.record import Answer, Interaction, encode
from collector.scrub import Scrubbed, declared_values
from router import Config, EventKind, Events, Evidence, Metric, encode_evidence

log = logging.getLogger("retort.collector")

Records = list[tuple[Stream, Record]]


class Assembled(msgspec.Struct, frozen=True):
    """What a frame becomes: `now`, records without any text, and `later`, its interaction, where there is one."""

    now: Records
    later: Coroutine[Any, Any, Records] | None = None


class Pool(Protocol):
    """Where texts are scrubbed; collector.scrub_pool.ScrubPool is the real one."""

    version: str

    async def scrub(
        self, values: list[Any], *, route: str, cluster: str, untouchable: frozenset[str] = frozenset()
    ) -> Scrubbed:
        """Raises ScrubError; never returns unscrubbed text."""


class Assembler:
    """Knows the configuration and the pool; keeps one count, of the pairs that each route's traffic owed."""

    def __init__(self, config: Config, pool: Pool, events: Events) -> None:
        self._config = config
        self._pool = pool
        self._events = events
        self._eligible: defaultdict[str, Counter[int]] = defaultdict(Counter)

    def begin(self, header: Header, body: bytes) -> Assembled:
        """Take a frame; must be called in the order of arrival. Never raises; `later` never raises either."""
        if isinstance(header, Happened):
            event = header.event
            if event.kind is EventKind.TICK:
                requests = {str(revision): n for revision, n in self._eligible.pop(event.route, {}).items()}
                event = msgspec.structs.replace(event, data={**event.data, "requests": requests})
            return Assembled([_evidence(event)])
        if owes_a_pair(header):
            self._eligible[header.decision.route][header.decision.rollout_revision] += 1
        try:
            return self._exchange(header, body)
        except Exception as error:
            return Assembled([self._failed(header, error)])

    def _exchange(self, exchange: Exchange, body: bytes) -> Assembled:
        route = exchange.decision.route
        self._events.emit("collector.exchange", route=route)
        policy = self._config.routes.get(route)
        if policy is None:
            return Assembled([self._quarantine(exchange, "unknown_route")])
        texts = _cut(exchange, body)
        answers: list[Answered] = [
            (call, _read(text)) for call, text in zip((exchange.served, *exchange.shadows), texts[1:], strict=True)
        ]
        found = observations(exchange, answers, policy)
        for seen in found:
            if seen.metric is Metric.QUALITY:
                self._events.emit("collector.pair", route=route, version=seen.version, score=seen.value)
        records = [_evidence(seen) for seen in found]
        return Assembled(records, self._kept(exchange, texts[0], answers) if exchange.capture else None)

    async def _kept(self, exchange: Exchange, raw: bytes, answers: list[Answered]) -> Records:
        try:
            return [await self._interaction(exchange, raw, answers)]
        except Exception as error:
            return [self._failed(exchange, error)]

    def _failed(self, exchange: Exchange, error: Exception) -> tuple[Stream, Record]:
        """At the edge of one exchange: the others go on."""
        log.error("collector.exchange_failed", extra=without_text(error))
        return self._quarantine(exchange, type(error).__name__)

    async def _interaction(self, exchange: Exchange, raw: bytes, answers: list[Answered]) -> tuple[Stream, Record]:
        try:
            asked = request(raw)
        except Unreadable as error:
            return self._quarantine(exchange, f"request {error}")
        if any(call.error is None and said is None for call, said in answers):
            return self._quarantine(exchange, "unreadable answer")
        values = [asked, [_words(said) for _, said in answers]]
        policy = self._config.routes[exchange.decision.route]
        names = {exchange.decision.route, *policy.claims, *(t.partition("/")[2] for t in policy.teachers)}
        untouchable = declared_values(asked) | names | {c.version for c, _ in answers if c.version}
        try:
            scrubbed = await self._pool.scrub(
                values, route=exchange.decision.route, cluster=exchange.cluster, untouchable=frozenset(untouchable)
            )
        except ScrubError as error:
            return self._quarantine(exchange, str(error))
        for entity, count in scrubbed.entities.items():
            self._events.emit("collector.scrubbed", entity=entity, count=count)
        clean_request, clean_words = scrubbed.values
        interaction = Interaction(
            id=exchange.id,
            at=exchange.at,
            route=exchange.decision.route,
            kind=exchange.decision.kind,
            arm=exchange.decision.arm,
            version=exchange.decision.version,
            propensity=exchange.decision.propensity,
            eligible=exchange.decision.eligible,
            policy_version=exchange.decision.policy_version,
            rollout_revision=exchange.decision.rollout_revision,
            consent=policy.capture.consent,
            scrubber=self._pool.version,
            cluster=exchange.cluster,
            stream=exchange.stream,
            request=clean_request,
            answers=tuple(
                self._answer(call, said, words) for (call, said), words in zip(answers, clean_words, strict=True)
            ),
            failed=tuple(self._answer(call, None, {}) for call in exchange.failed),
        )
        return Stream.INTERACTIONS, _record(exchange, encode(interaction))

    def _answer(self, call: Call, said: Completion | None, words: Mapping[str, Any]) -> Answer:
        return Answer(
            arm=call.arm,
            version=call.version,
            upstream=call.upstream,
            status=call.status,
            error=call.error,
            usage=said.usage if said else None,
            cost_usd=self._cost(call, said),
            ttft_ms=call.ttft_ms,
            total_ms=call.total_ms,
            confidence=call.confidence,
            **words,
        )

    def _cost(self, call: Call, said: Completion | None) -> float | None:
        """USD; None, and an event, where the operator gave no price: an unknown price is not 0."""
        if call.upstream is None or said is None or said.usage is None:
            return None
        upstream, _, model = call.upstream.partition("/")
        prices = self._config.upstreams[upstream].prices.get(model) if upstream in self._config.upstreams else None
        if prices is None:
            self._events.emit("collector.unknown_price", upstream=call.upstream)
            return None
        used = said.usage
        return (used.prompt_tokens * prices.input + used.completion_tokens * prices.output) / 1e6

    def _quarantine(self, exchange: Exchange, reason: str) -> tuple[Stream, Record]:
        """The exchange's header alone: it holds no text."""
        log.warning("collector.quarantined", extra={"id": exchange.id, "reason": reason})
        self._events.emit("collector.quarantined", route=exchange.decision.route, reason=reason.split(":")[0])
        value = msgspec.msgpack.encode({"reason": reason, "exchange": exchange})
        return Stream.QUARANTINE, _record(exchange, value)


def _cut(exchange: Exchange, body: bytes) -> list[bytes]:
    """The request, the served answer and the shadows' answers."""
    pieces, at = [], 0
    for size in (exchange.request_bytes, exchange.served.body_bytes, *(c.body_bytes for c in exchange.shadows)):
        pieces.append(body[at : at + size])
        at += size
    return pieces


def _read(text: bytes) -> Completion | None:
    try:
        return completion(text) if text else None
    except Unreadable:
        return None


def _words(said: Completion | None) -> dict[str, Any]:
    """All that an upstream worded itself."""
    if said is None:
        return {}
    return {
        "message": said.message,
        "finish_reason": said.finish_reason,
        "model": said.model,
        "system_fingerprint": said.system_fingerprint,
    }


def _evidence(record: Evidence) -> tuple[Stream, Record]:
    made = Record(id=record.id, key=record.route, at=record.at, value=encode_evidence(record))
    return Stream.EVIDENCE, made


def _record(exchange: Exchange, value: bytes) -> Record:
    return Record(id=exchange.id, key=exchange.decision.route, at=exchange.at, value=value)
