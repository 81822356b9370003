"""Appending to Kafka: each append is one transaction, and no record whose id is among a topic's newest is sent again.

A name (the transactional id) has one appender at a time. It fences its predecessors when it starts and whenever it
can't know how an append ended; from then on nothing of theirs can come any more, so what the topics' tails hold is
what was appended. Only then does it append again, and leaves out what is there.
"""

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from kafka.errors import KafkaError, KafkaTimeoutError

from collector.errors import LogError
from collector.log import Record, Stream
from collector.log_kafka_read import NONCE, Reader, entry, message
from collector.log_kafka_topics import Topics

NEWEST = 200_000  # ids of a topic that are known at least; twice as many at most, each about 80 bytes
TAIL_BYTES = 256 << 20  # of values that are read for them: what the collector holds unacknowledged at the most
PAGE = 2_000

Appended = tuple[str, Record]  # the topic, and what goes there


def tail(reader: Reader, end: int) -> int:
    """From which offset on a topic's newest NEWEST ids stand, or those of its newest TAIL_BYTES. Raises LogError."""
    newest = reader.messages(max(end - PAGE, 0), PAGE)
    mean = sum(len(one.value or b"") for one in newest) / max(len(newest), 1)
    return max(end - min(NEWEST, int(TAIL_BYTES / max(mean, 1.0))), 0)


class Known:
    """The newest ids of a topic, and from which offset on it may hold others."""

    def __init__(self) -> None:
        self.next: int | None = None
        self.fresh = False  # whether nothing can have come since
        self._new: set[int] = set()
        self._old: set[int] = set()

    def __contains__(self, name: str) -> bool:
        place = hash(name)
        return place in self._new or place in self._old

    def add(self, name: str) -> None:
        """Remember an id; the oldest are forgotten, many at a time."""
        if len(self._new) >= NEWEST:
            self._old, self._new = self._new, set()
        self._new.add(hash(name))


class Appender:
    """All or nothing, once, in order. Safe to use from several threads."""

    def __init__(self, topics: Topics, name: str) -> None:
        self._topics, self._cluster = topics, topics.cluster
        self._name = f"{topics.cluster.prefix}.{name}"
        self._producer: Any = None
        self._known: dict[str, Known] = {}
        self._lock = threading.Lock()

    def fence(self) -> None:
        """End what predecessors have begun, and let them begin nothing any more. Raises LogError."""
        with self._lock, self._cluster.translated():
            self._ready()

    def append(self, records: Sequence[tuple[Stream, Record]]) -> None:
        """See EventLog. Returns or raises within about four timeouts; after an error the next call starts anew."""
        with self._lock, self._cluster.translated():
            self._ready()
            new = self._new(records)
            if new:
                try:
                    self._commit([(topic, *message(one, secrets.token_bytes(NONCE))) for topic, one in new])
                except BaseException:
                    self._forget()
                    raise
            for topic, one in new:
                self._known[topic].add(one.id)

    def erase(self, topic: str, keys: Sequence[bytes]) -> None:
        """Have the broker take away the messages that have these keys. Raises LogError.

        It compacts all but a topic's newest segment. So what says that they are gone is said twice, the second time
        dated a segment later, which begins a new one.
        """
        step = int(self._topics.settings["segment.ms"]) + 1
        now = int(time.time() * 1000)
        with self._lock, self._cluster.translated():
            self._ready()
            try:
                for at in (now, now + step):
                    self._commit([(topic, key, None, [], at) for key in keys])
            except BaseException:
                self._forget()
                raise

    def close(self) -> None:
        """Release what is held."""
        with self._lock:
            self._forget()

    def _ready(self) -> None:
        if self._producer is None:
            for known in self._known.values():
                known.fresh = False
            self._producer = self._cluster.producer(self._name)
            try:
                self._producer.init_transactions()
                self._topics.unhang(self._name)
            except BaseException:
                self._forget()
                raise

    def _forget(self) -> None:
        """Let go of the producer, whatever it was at: the next one fences it."""
        producer, self._producer = self._producer, None
        if producer is not None:
            # Its own close() waits for what it still has, and where that doesn't come leaves its thread sending.
            producer._sender.force_close()
            producer._sender.join(1.0)
            with suppress(KafkaError):
                producer.close(timeout=0)

    def _new(self, records: Sequence[tuple[Stream, Record]]) -> list[Appended]:
        found: dict[tuple[str, str], Record] = {}
        topics: dict[tuple[Stream, str], str] = {}
        for stream, one in records:
            topic = topics.get((stream, one.key)) or topics.setdefault(
                (stream, one.key), self._topics.name(stream, one.key)
            )
            if one.id not in self._caught_up(topic):
                found.setdefault((topic, one.id), one)
        return [(topic, one) for (topic, _), one in found.items()]

    def _caught_up(self, topic: str) -> Known:
        known = self._known.setdefault(topic, Known())
        if not known.fresh:
            self._topics.make(topic)
            reader = Reader(self._topics, topic)
            try:
                self._catch_up(topic, known, reader)
            finally:
                reader.close()
            known.fresh = True
        return known

    def _catch_up(self, topic: str, known: Known, reader: Reader) -> None:
        """Read on to where the topic ended when this appender had fenced the others.

        A transaction that another appender, of another name, has not ended hides what follows it: it is waited for.
        """
        end = self._topics.ends([topic], committed=False)[topic]
        if known.next is None:
            known.next = tail(reader, end)
        deadline = time.monotonic() + 4 * self._cluster.settings.timeout
        while known.next < end:
            page = reader.messages(known.next, PAGE)
            for one in page:
                if (made := entry("", one)) is not None:
                    known.add(made.id)
            if page:
                known.next = page[-1].offset + 1
            elif reader.end() >= end:
                known.next = end  # nothing but marks of transactions
            elif time.monotonic() > deadline:
                raise LogError(f"topic {topic}: an appender of another name has begun a transaction and doesn't end it")
            else:
                time.sleep(0.1)

    def _commit(self, messages: Sequence[tuple[str, bytes, bytes | None, list[tuple[str, bytes]], int]]) -> None:
        """One transaction. None of kafka-python's own waits is without an end but that for its commit."""
        timeout = self._cluster.settings.timeout
        producer = self._producer
        producer.begin_transaction()
        futures = [
            (topic, producer.send(topic, value, key=key, headers=headers, partition=0, timestamp_ms=at))
            for topic, key, value, headers, at in messages
        ]
        producer.flush(timeout)
        ends = {topic: future.get(timeout=0).offset + 1 for topic, future in futures}  # each must have been taken
        ending = producer._transaction_manager.begin_commit()
        producer._sender.wakeup()
        if not ending.wait(timeout_ms=self._cluster.timeout_ms):
            raise KafkaTimeoutError("the commit was not answered")
        self._shown(ends)
        for topic, end in ends.items():
            if topic in self._known:
                self._known[topic].next = end

    def _shown(self, ends: Mapping[str, int]) -> None:
        """Wait until readers see what was committed: the brokers mark it after they have answered."""
        deadline = time.monotonic() + self._cluster.settings.timeout
        while True:
            seen = self._topics.ends(ends, committed=True)
            if all(seen[topic] >= end for topic, end in ends.items()):
                return
            if time.monotonic() > deadline:
                raise KafkaTimeoutError("what was committed is not to be seen")
            time.sleep(0.002)
