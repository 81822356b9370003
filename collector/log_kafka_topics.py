"""The log's topics in Kafka: what they are called and made with, where they begin and end."""

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from kafka import TopicPartition
from kafka.admin import AbortTransactionSpec, OffsetSpec
from kafka.errors import BrokerResponseError, TopicAlreadyExistsError
from kafka.protocol.consumer.offsets import IsolationLevel

from collector.log import Stream
from collector.log_kafka_client import MOST_BYTES, Cluster

DAY_MS = 86_400_000
PAUSE = 0.1

# One partition: a route has one order. Keys are unique, so compaction takes away what was erased and nothing else; it
# comes within a week, whatever the topic's traffic. Expiry is the log's own, by `expire`. Clocks may be wrong.
TOPIC: Mapping[str, str | int | float] = {
    "cleanup.policy": "compact,delete",
    "retention.ms": -1,
    "retention.bytes": -1,
    "segment.ms": DAY_MS,
    "max.compaction.lag.ms": 7 * DAY_MS,
    "max.message.bytes": MOST_BYTES,
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": (1 << 63) - 1,
    "message.timestamp.after.max.ms": (1 << 63) - 1,
}


class Topics:
    """A topic of one partition for each stream and key."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        settings = cluster.settings
        self._prefix, self._replication = cluster.prefix, settings.replication or -1
        self._timeout_ms = cluster.timeout_ms
        self.settings = {**TOPIC, **settings.topic}
        if settings.min_insync is not None:
            self.settings["min.insync.replicas"] = settings.min_insync
        self._made: set[str] = set()

    def name(self, stream: Stream, key: str) -> str:
        """`PREFIX.STREAM.KEY`, the key with `_xx` for each byte that is no letter, digit or hyphen."""
        plain = re.sub(rb"[^A-Za-z0-9-]", lambda found: b"_%02x" % found[0][0], key.encode())
        return f"{self._prefix}.{stream}.{plain.decode()}"

    def key(self, topic: str) -> str:
        """Inverse of `name`."""
        plain = topic.rpartition(".")[2].encode()
        return re.sub(rb"_(..)", lambda found: bytes([int(found[1], 16)]), plain).decode()

    def pattern(self, stream: Stream) -> str:
        """What the topics of a stream match."""
        return rf"^{self._prefix}\.{stream}\.[A-Za-z0-9_-]+$"

    def of(self, stream: Stream) -> list[str]:
        """Those that there are. Raises LogError."""
        with self.cluster.admin() as admin:
            names: list[str] = admin.list_topics()
        return [name for name in names if re.match(self.pattern(stream), name)]

    def exists(self, topic: str) -> bool:
        """Whether there is such a topic. Raises LogError."""
        with self.cluster.admin() as admin:
            return topic in admin.list_topics()

    def make(self, topic: str) -> None:
        """Create a topic that isn't there yet, and wait until it can be used. Raises LogError."""
        if topic in self._made:
            return
        deadline = time.monotonic() + self.cluster.settings.timeout
        with self.cluster.admin() as admin:
            while topic not in admin.list_topics():
                try:
                    self._create(admin, topic)
                except TopicAlreadyExistsError:
                    pass
                except BrokerResponseError:  # for example fewer brokers than replicas: some may be about to come
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(PAUSE)
            admin.wait_for_topics([topic], timeout_ms=self._timeout_ms)
        self._made.add(topic)

    def ends(self, topics: Iterable[str], *, committed: bool) -> dict[str, int]:
        """The offsets after the topics' last messages: of those committed, or of all. Raises LogError."""
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        with self.cluster.admin() as admin:
            found = admin.list_partition_offsets(
                {only(topic): OffsetSpec.LATEST for topic in topics}, isolation_level=level, timeout_ms=self._timeout_ms
            )
        return {part.topic: int(one.offset) for part, one in found.items()}

    def filled(self, stream: Stream) -> list[str]:
        """The topics of a stream that hold anything. Raises LogError."""
        topics = self.of(stream)
        if not topics:
            return []
        with self.cluster.admin() as admin:
            first, last = (
                admin.list_partition_offsets({only(t): spec for t in topics}, timeout_ms=self._timeout_ms)
                for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
            )
        return [t for t in topics if first[only(t)].offset < last[only(t)].offset]

    def offset_at(self, topic: str, milliseconds: int) -> int | None:
        """The offset of the first message that is not older; None where all are. Raises LogError."""
        with self.cluster.admin() as admin:
            found = admin.list_partition_offsets({only(topic): milliseconds}, timeout_ms=self._timeout_ms)
            offset = int(found[only(topic)].offset)
        return offset if offset >= 0 else None

    def unhang(self, name: str) -> None:
        """End what the transactions of an appender that has just begun left open. Raises LogError.

        There is nothing, but for a broker that was killed in the midst of a commit: back again, it may count the
        transaction as complete and not have marked the topics, which hides all that follows for good.
        """
        topics = [topic for stream in Stream for topic in self.of(stream)]
        if not topics:
            return
        with self.cluster.admin() as admin:
            mine = admin.describe_transactions([name])[name].producer_id
            for part, found in admin.describe_producers(map(only, topics)).items():
                for one in found.active_producers:
                    if one.producer_id == mine and one.current_transaction_start_offset >= 0:
                        epochs = one.producer_epoch, max(one.coordinator_epoch, 0)
                        admin.abort_transaction(AbortTransactionSpec(part, mine, *epochs))

    def cut(self, topic: str, offset: int) -> None:
        """Have all before an offset deleted. Raises LogError."""
        with self.cluster.admin() as admin:
            admin.delete_records({only(topic): offset}, timeout_ms=self._timeout_ms)

    def _create(self, admin: Any, topic: str) -> None:
        options = {
            "num_partitions": 1,
            "replication_factor": self._replication,
            "configs": {name: str(value) for name, value in self.settings.items()},
        }
        admin.create_topics({topic: options}, timeout_ms=self._timeout_ms)


def only(topic: str) -> TopicPartition:
    """A topic's one partition."""
    return TopicPartition(topic, 0)
