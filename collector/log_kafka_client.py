"""A Kafka cluster as the log sees it: how to get in, what its topics are called and made with, and its errors as ours.

kafka-python 3.0.12; what it can't be trusted with is worked around where it is used, and told there.
"""

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import BrokerResponseError, KafkaError, KafkaTimeoutError
from kafka.net.compat import KafkaNetClient

from collector.errors import LogError
from router.config_kafka import KafkaSettings, kafka_address

MOST_BYTES = 96 << 20  # of a record; a broker takes requests of 100 MiB unless told otherwise


class Cluster:
    """Clients for the brokers of a `kafka://` URL. Raises LogError where the URL or the certificates can't be used."""

    def __init__(self, url: str, settings: KafkaSettings) -> None:
        try:
            self._hosts, self.prefix = kafka_address(url)
        except ValueError as error:
            raise LogError(f"log: {error}") from error
        self.settings = settings
        self.timeout_ms = int(settings.timeout * 1000)
        self._url = url
        self._admin: Any = None
        self._lock = threading.RLock()
        # What it has to say comes as errors; and at its debug level it would log what is appended.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)

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
        return f"{where} answers, but lets nobody in: it is starting, or security_protocol, cert_file or port are wrong"
