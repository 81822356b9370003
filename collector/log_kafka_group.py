"""Groups of readers of the log in Kafka: the broker shares a stream's topics out among a group's members."""

import time
from typing import Any

from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from collector.log import Entry, Stream
from collector.log_kafka_read import entry
from collector.log_kafka_topics import Topics

LOST_SECONDS = 10.0  # without a topic, after which the broker is asked whether it still knows this member
NEW_TOPICS_MS = 2_000  # how often is looked for new topics


class GroupMember:
    """See Consumer. Each topic has one partition, so it is topics that are shared out."""

    def __init__(self, topics: Topics, stream: Stream, group: str) -> None:
        self._topics, self._cluster = topics, topics.cluster
        self._group = f"{topics.cluster.prefix}.{stream}.{group}"
        self._pattern = topics.pattern(stream)
        self._consumer: Any = None
        self._join()

    def poll(self, limit: int = 1000, *, seconds: float = 1.0) -> list[Entry]:
        """See Consumer."""
        deadline = time.monotonic() + seconds
        with self._cluster.translated():
            while True:
                left = max(deadline - time.monotonic(), 0.0)
                got = self._consumer.poll(timeout_ms=int(left * 1000), max_records=limit)
                found = [
                    made
                    for part, messages in got.items()
                    for one in messages
                    if (made := entry(self._topics.key(part.topic), one)) is not None
                ]
                self._stay()
                if found or time.monotonic() >= deadline:
                    return found

    def commit(self) -> None:
        """See Consumer."""
        with self._cluster.translated():
            self._consumer.commit(timeout_ms=self._cluster.timeout_ms)

    def lag(self) -> dict[str, int]:
        """See Consumer."""
        with self._cluster.translated():
            mine = self._consumer.assignment()
            ends = self._consumer.end_offsets(mine, timeout_ms=self._cluster.timeout_ms) if mine else {}
            return {
                self._topics.key(part.topic): max(end - (self._consumer.position(part, timeout_ms=1000) or 0), 0)
                for part, end in ends.items()
            }

    def close(self) -> None:
        """See Consumer."""
        self._consumer.close(autocommit=False, timeout_ms=self._cluster.timeout_ms)

    def _join(self) -> None:
        self._consumer = self._cluster.consumer(
            group_id=self._group,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            session_timeout_ms=10_000,
            metadata_max_age_ms=NEW_TOPICS_MS,
        )
        self._consumer.subscribe(pattern=self._pattern)
        self._served = time.monotonic()

    def _stay(self) -> None:
        """kafka-python's consumer can fall out of its group, and never notice."""
        if self._consumer.assignment():
            self._served = time.monotonic()
        elif time.monotonic() > self._served + LOST_SECONDS:
            self._served = time.monotonic()
            if not self._known():
                self.close()
                self._join()

    def _known(self) -> bool:
        """Whether the broker has this member in its group, and has given it nothing: there are more than topics."""
        name = self._consumer.group_metadata().member_id
        with self._cluster.admin() as admin:
            members = admin.describe_groups([self._group])[self._group]["members"]
        return any(one["member_id"] == name for one in members)
