"""Reading a topic of the log, from any offset, and knowing where it ends."""

import struct
import threading
import time
from typing import Any

from collector.errors import LogError
from collector.log import Entry, Record
from collector.log_kafka_topics import Topics, only

_AT = struct.Struct(">d")
NONCE = 8  # bytes before the id in a message's key: what comes twice is two messages, also after compaction

Message = tuple[bytes, bytes | None, list[tuple[str, bytes]], int]  # key, value, headers, milliseconds


def message(record: Record, nonce: bytes) -> Message:
    """How a record is written. Kafka's times are in milliseconds, so the record's own goes into a header."""
    headers = [("at", _AT.pack(record.at))]
    if record.subject:
        headers.append(("subject", record.subject.encode()))
    return nonce + record.id.encode(), record.value, headers, max(int(record.at * 1000), 0)


def entry(key: str, found: Any) -> Entry | None:
    """A message as it was appended; None for a tombstone."""
    if found.value is None:
        return None
    headers = dict(found.headers)
    return Entry(
        offset=found.offset,
        id=found.key[NONCE:].decode(),
        key=key,
        at=_AT.unpack(headers["at"])[0],
        value=found.value,
        subject=headers.get("subject", b"").decode(),
    )


class Reader:
    """One topic, which need not exist. Safe to use from several threads."""

    def __init__(self, topics: Topics, topic: str) -> None:
        self._topics, self._cluster = topics, topics.cluster
        self._part = only(topic)
        self._key = topics.key(topic)
        self._consumer: Any = None
        self._empty = (0, 0)  # from an offset to an end, between which there are marks of transactions alone
        self._lock = threading.Lock()

    def read(self, offset: int, limit: int) -> list[Entry]:
        """At most `limit` entries from `offset` on; fewer only at the end. Raises LogError."""
        return [made for found in self.messages(offset, limit) if (made := entry(self._key, found)) is not None]

    def messages(self, offset: int, limit: int) -> list[Any]:
        """The same as Kafka's messages, which are as many as there are entries, tombstones not counted."""
        with self._lock, self._cluster.translated():
            try:
                return self._messages(offset, limit)
            except BaseException:
                self._forget()
                raise

    def end(self) -> int:
        """The offset after the last message that is committed; 0 where there is no topic. Raises LogError."""
        with self._lock, self._cluster.translated():
            try:
                return self._end()
            except BaseException:
                self._forget()
                raise

    def close(self) -> None:
        """Release what is held."""
        with self._lock:
            self._forget()

    def _end(self) -> int:
        if self._consumer is None:
            self._consumer = self._cluster.consumer(fetch_max_wait_ms=10)  # it never asks for what isn't there yet
        if not self._consumer.assignment():
            if not self._topics.exists(self._part.topic):
                return 0
            self._consumer.assign([self._part])
        ends = self._consumer.end_offsets([self._part], timeout_ms=self._cluster.timeout_ms)
        return int(ends[self._part])

    def _messages(self, offset: int, limit: int) -> list[Any]:
        end = self._end()
        if offset >= end or (offset >= self._empty[0] and end == self._empty[1]):
            return []
        consumer, part, found, missing = self._consumer, self._part, list[Any](), limit
        if consumer.position(part, timeout_ms=self._cluster.timeout_ms) != offset:
            consumer.seek(part, offset)
        deadline = time.monotonic() + self._cluster.settings.timeout
        while missing > 0:
            position = consumer.position(part, timeout_ms=self._cluster.timeout_ms)
            if position is not None and position >= end:
                break
            more = consumer.poll(timeout_ms=20, max_records=missing).get(part, ())
            if more:
                deadline = time.monotonic() + self._cluster.settings.timeout
            elif time.monotonic() > deadline:
                raise LogError(f"topic {part.topic} is not answered from offset {position} on")
            found += more
            missing -= sum(one.value is not None for one in more)
        if missing > 0:
            self._empty = (found[-1].offset + 1 if found else offset, end)
        return found

    def _forget(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=1000)
