"""A Kafka cluster as the log sees it: how to get in, what its topics are called and made with, and its errors as ours.

kafka-python 3.0.12; what it can't be trusted with is worked around where it is used, and told there.
"""

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import AbortTransactionSpec, OffsetSpec
from kafka.errors import BrokerResponseError, KafkaError, KafkaTimeoutError, TopicAlreadyExistsError
from kafka.net.compat import KafkaNetClient
from kafka.protocol.consumer.offsets import IsolationLevel

from collector.errors import LogError
from collector.log import Stream
from router.config_kafka import KafkaSettings, kafka_address

MOST_BYTES = 96 << 20  # of a record; a broker takes requests of 100 MiB unless told otherwise
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


class Cluster:
    """Clients for the brokers of a `kafka://` URL. Raises LogError where the URL or the certificates can't be used."""

    def __init__(self, url: str, settings: KafkaSettings) -> None:
        try:
            self._hosts, self.prefix = kafka_address(url)
        except ValueError as error:
            raise LogError(f"log: {error}") from error
        self.settings = settings
        self.timeout_ms = int(settings.timeout * 1000)
        self.topic_settings = {**TOPIC, **settings.topic}
        if settings.min_insync is not None:
            self.topic_settings["min.insync.replicas"] = settings.min_insync
        self._url = url
        self._made: set[str] = set()
        self._admin: Any = None
        self._lock = threading.RLock()
        # What it has to say comes as errors; and at its debug level it would log what is appended.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)

    # -- topics

    def topic(self, stream: Stream, key: str) -> str:
        """`PREFIX.STREAM.KEY`, the key with `_xx` for each byte that is no letter, digit or hyphen."""
        plain = re.sub(rb"[^A-Za-z0-9-]", lambda found: b"_%02x" % found[0][0], key.encode())
        return f"{self.prefix}.{stream}.{plain.decode()}"

    def key(self, topic: str) -> str:
        """Inverse of `topic`."""
        plain = topic.rpartition(".")[2].encode()
        return re.sub(rb"_(..)", lambda found: bytes([int(found[1], 16)]), plain).decode()

    def pattern(self, stream: Stream) -> str:
        """What the topics of a stream match."""
        return rf"^{self.prefix}\.{stream}\.[A-Za-z0-9_-]+$"

    def topics(self, stream: Stream) -> list[str]:
        """Those that there are. Raises LogError."""
        with self.admin() as admin:
            names: list[str] = admin.list_topics()
        return [name for name in names if re.match(self.pattern(stream), name)]

    def exists(self, topic: str) -> bool:
        """Whether there is such a topic. Raises LogError."""
        with self.admin() as admin:
            return topic in admin.list_topics()

    def make(self, topic: str) -> None:
        """Create a topic that isn't there yet, and wait until it can be used. Raises LogError."""
        if topic in self._made:
            return
        deadline = time.monotonic() + self.settings.timeout
        with self.admin() as admin:
            while topic not in admin.list_topics():
                try:
                    self._create(admin, topic)
                except TopicAlreadyExistsError:
                    pass
                except BrokerResponseError:  # for example fewer brokers than replicas: some may be about to come
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(PAUSE)
            admin.wait_for_topics([topic], timeout_ms=self.timeout_ms)
        self._made.add(topic)

    def ends(self, topics: Iterable[str], *, committed: bool) -> dict[str, int]:
        """The offsets after the topics' last messages: of those committed, or of all. Raises LogError."""
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        with self.admin() as admin:
            found = admin.list_partition_offsets(
                {only(topic): OffsetSpec.LATEST for topic in topics}, isolation_level=level, timeout_ms=self.timeout_ms
            )
        return {part.topic: int(one.offset) for part, one in found.items()}

    def filled(self, stream: Stream) -> list[str]:
        """The topics of a stream that hold anything. Raises LogError."""
        topics = self.topics(stream)
        if not topics:
            return []
        with self.admin() as admin:
            first, last = (
                admin.list_partition_offsets({only(t): spec for t in topics}, timeout_ms=self.timeout_ms)
                for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
            )
        return [t for t in topics if first[only(t)].offset < last[only(t)].offset]

    def offset_at(self, topic: str, milliseconds: int) -> int | None:
        """The offset of the first message that is not older; None where all are. Raises LogError."""
        with self.admin() as admin:
            found = admin.list_partition_offsets({only(topic): milliseconds}, timeout_ms=self.timeout_ms)
            offset = int(found[only(topic)].offset)
        return offset if offset >= 0 else None

    def unhang(self, name: str) -> None:
        """End what the transactions of an appender that has just begun left open. Raises LogError.

        There is nothing, but for a broker that was killed in the midst of a commit: back again, it may count the
        transaction as complete and not have marked the topics, which hides all that follows for good.
        """
        topics = [topic for stream in Stream for topic in self.topics(stream)]
        if not topics:
            return
        with self.admin() as admin:
            mine = admin.describe_transactions([name])[name].producer_id
            for part, found in admin.describe_producers(map(only, topics)).items():
                for one in found.active_producers:
                    if one.producer_id == mine and one.current_transaction_start_offset >= 0:
                        epochs = one.producer_epoch, max(one.coordinator_epoch, 0)
                        admin.abort_transaction(AbortTransactionSpec(part, mine, *epochs))

    def cut(self, topic: str, offset: int) -> None:
        """Have all before an offset deleted. Raises LogError."""
        with self.admin() as admin:
            admin.delete_records({only(topic): offset}, timeout_ms=self.timeout_ms)

    def _create(self, admin: Any, topic: str) -> None:
        options = {
            "num_partitions": 1,
            "replication_factor": self.settings.replication or -1,
            "configs": {name: str(value) for name, value in self.topic_settings.items()},
        }
        admin.create_topics({topic: options}, timeout_ms=self.timeout_ms)

    # -- clients

    def producer(self, name: str) -> Any:
        """A transactional one. Raises LogError."""
        return self._open(
            KafkaProducer,
            transactional_id=name,
            transaction_timeout_ms=3 * self.timeout_ms,
            delivery_timeout_ms=10 * self.timeout_ms,  # longer than anybody waits: once a batch expires, it wedges
            max_block_ms=self.timeout_ms,
            metrics_enabled=False,
            linger_ms=1000,  # who sends flushes
            batch_size=1 << 20,
            max_request_size=MOST_BYTES,
        )

    def consumer(self, **more: Any) -> Any:
        """One that sees what was committed. Raises LogError."""
        return self._open(
            KafkaConsumer,
            metrics_enabled=False,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 << 20,
            **more,
        )

    @contextmanager
    def admin(self) -> Iterator[Any]:
        """The one for topics, kept until it fails. Raises LogError."""
        with self._lock, self.translated():
            if self._admin is None:
                self._admin = self._open(KafkaAdminClient)
            try:
                yield self._admin
            except BrokerResponseError:
                raise  # an answer, and no failure of the client
            except BaseException:
                self._close_admin()
                raise

    def _open(self, make: Callable[..., Any], **more: Any) -> Any:
        options = {
            "bootstrap_servers": self._hosts,
            "bootstrap_timeout_ms": self.timeout_ms,
            "request_timeout_ms": self.timeout_ms,
            "reconnect_backoff_max_ms": 500,
            "retry_backoff_ms": 20,  # among others, until a commit before has reached all its topics
            "security_protocol": self.settings.security_protocol,
        }
        if self.settings.security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.settings.sasl_mechanism,
                "sasl_plain_username": self.settings.username,
                "sasl_plain_password": self.settings.password,
            }
        if self.settings.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._tls()
        inner: list[Any] = []

        def client(**its: Any) -> Any:
            inner.append(KafkaNetClient(**its))
            return inner[0]

        with self.translated():
            try:
                return make(**options, **more, kafka_client=client)
            except BaseException as error:
                for one in inner:
                    one.close()  # what fails to start leaves a thread running otherwise
                if isinstance(error, KafkaTimeoutError):  # all that is said of any failure to get in
                    raise LogError(f"the log {self._url} can't be reached: {self._why_not()}") from error
                raise

    def close(self) -> None:
        """Release what is held."""
        with self._lock:
            self._close_admin()

    def _close_admin(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()

    # -- errors

    @contextmanager
    def translated(self) -> Iterator[None]:
        """kafka-python's errors as LogError."""
        try:
            yield
        except (KafkaError, OSError) as error:
            raise LogError(f"the log {self._url} can't be used: {error}") from error

    def _tls(self) -> ssl.SSLContext:
        s = self.settings
        try:
            context = ssl.create_default_context(cafile=s.ca_file)
            if s.cert_file:
                context.load_cert_chain(s.cert_file, s.key_file)
        except OSError as error:  # ssl's own errors are among them
            files = ", ".join(filter(None, (s.ca_file, s.cert_file, s.key_file)))
            raise LogError(f"kafka: the certificates can't be used ({files}): {error}") from error
        return context

    def _why_not(self) -> str:
        return "; ".join(dict.fromkeys(map(self._knock, self._hosts)))

    def _knock(self, where: str) -> str:
        """Why a broker lets nobody in, as far as it can be found out from outside."""
        host, _, port = where.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=2.0) as plain:
                if self.settings.security_protocol.endswith("SSL"):
                    with self._tls().wrap_socket(plain, server_hostname=host.strip("[]")) as wrapped:
                        wrapped.version()
        except socket.gaierror as error:
            return f"the host {host!r} is not known ({error.strerror})"
        except ssl.SSLCertVerificationError as error:
            return f"{where} shows a certificate that ca_file doesn't vouch for ({error.verify_message})"
        except ssl.SSLError as error:
            return f"{where} doesn't speak TLS ({error.reason}); check security_protocol, and the port"
        except OSError as error:
            return f"nobody answers at {where} ({error.strerror or error})"
        if self.settings.security_protocol.startswith("SASL"):
            return f"{where} answers, and refuses the login; check username, password and sasl_mechanism"
        return f"{where} answers, and lets nobody in: it is about to start, or security_protocol, cert_file or the port are wrong"


def only(topic: str) -> TopicPartition:
    """A topic's one partition."""
    return TopicPartition(topic, 0)
