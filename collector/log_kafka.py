"""The log in Kafka: a topic of one partition for each stream and key, so that a route has one order.

Appends are transactions, readers see what was committed, and an appender that starts or fails makes sure of what is
there before it goes on: a record that was acknowledged is there once.
"""

import secrets
import threading
from collections.abc import Sequence

import msgspec

from collector.log import Entry, Record, Stream
from collector.log_kafka_append import Appender
from collector.log_kafka_client import Cluster
from collector.log_kafka_find import Finder
from collector.log_kafka_group import GroupMember
from collector.log_kafka_read import Reader, entry
from collector.log_kafka_topics import Topics
from router.config_kafka import KafkaSettings

PAGE = 1_000


class KafkaLog:
    """See EventLog. Safe to use from several threads.

    `appender`: the name under which it appends, which no other living process has; whoever had it before is fenced
    here and now. Without a name it may append too, beside all others. Raises LogError.
    """

    def __init__(self, url: str, settings: KafkaSettings, *, appender: str | None = None) -> None:
        self._topics = Topics(Cluster(url, settings))
        self._readers: dict[str, Reader] = {}
        self._finders: dict[str, Finder] = {}
        self._lock = threading.Lock()
        name = (settings.transactional_id or appender) if appender else None
        self._appender = Appender(self._topics, name or secrets.token_hex(8))
        if name:
            try:
                self._appender.fence()
            except BaseException:
                self.close()
                raise

    def append(self, records: Sequence[tuple[Stream, Record]]) -> None:
        """See EventLog."""
        self._appender.append(records)

    def read(self, stream: Stream, offset: int, limit: int = 1000, *, key: str) -> list[Entry]:
        """See EventLog."""
        return self._reader(stream, key).read(max(offset, 0), limit)

    def find(self, stream: Stream, name: str, *, key: str) -> Entry | None:
        """See EventLog."""
        topic, reader = self._topics.name(stream, key), self._reader(stream, key)
        with self._lock:
            finder = self._finders.get(topic) or self._finders.setdefault(topic, Finder(reader))
        return finder.find(name)

    def end(self, stream: Stream, *, key: str) -> int:
        """See EventLog."""
        return self._reader(stream, key).end()

    def keys(self, stream: Stream) -> list[str]:
        """See EventLog."""
        return sorted(map(self._topics.key, self._topics.filled(stream)))

    def expire(self, stream: Stream, *, key: str, before: float) -> None:
        """See EventLog."""
        topic = self._topics.name(stream, key)
        reader = self._reader(stream, key)
        end = reader.end()
        offset = self._topics.offset_at(topic, int(before * 1000)) if end else None
        while offset is not None and offset < end:
            # Times need not rise, and a mark of a transaction has one too: what stands there says itself how old it is.
            page = reader.read(offset, PAGE)
            found = next((one.offset for one in page if one.at >= before), None)
            if found is not None:
                return self._topics.cut(topic, found)
            if not page:
                break
            offset = page[-1].offset + 1
        if end:
            self._topics.cut(topic, end)

    def erase(self, stream: Stream, *, subject: str) -> list[Entry]:
        """See EventLog."""
        erased: list[Entry] = []
        for topic in self._topics.of(stream) if subject else ():
            found = self._of_subject(topic, subject)
            if found:
                self._appender.erase(topic, [key for key, _ in found])
            erased += [one for _, one in found]
        return sorted(erased, key=lambda one: (one.key, one.offset))

    def scour(self, *, seconds: float) -> bool:
        """See EventLog. The broker compacts by itself."""
        return True

    def consumer(self, stream: Stream, *, group: str) -> GroupMember:
        """See EventLog."""
        return GroupMember(self._topics, stream, group)

    def close(self) -> None:
        """See EventLog."""
        self._appender.close()
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()
        self._topics.cluster.close()

    def _reader(self, stream: Stream, key: str) -> Reader:
        topic = self._topics.name(stream, key)
        with self._lock:
            return self._readers.get(topic) or self._readers.setdefault(topic, Reader(self._topics, topic))

    def _of_subject(self, topic: str, subject: str) -> list[tuple[bytes, Entry]]:
        """All of a topic is read: Kafka has no index."""
        reader = Reader(self._topics, topic)
        key, offset, found = self._topics.key(topic), 0, list[tuple[bytes, Entry]]()
        try:
            while page := reader.messages(offset, PAGE):
                for one in page:
                    made = entry(key, one)
                    if made is not None and made.subject == subject:
                        found.append((one.key, msgspec.structs.replace(made, value=b"")))
                offset = page[-1].offset + 1
        finally:
            reader.close()
        return found
