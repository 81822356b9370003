"""From a log's URL to the log."""

from pathlib import Path

from collector.errors import LogError
from collector.log import EventLog
from collector.log_sqlite import SqliteLog
from router.config_kafka import KafkaSettings


def open_log(url: str, *, kafka: KafkaSettings | None = None, appender: str | None = None) -> EventLog:
    """The log at `sqlite:///relative/path`, `sqlite:////absolute/path`, `kafka://host:port[,host:port]/prefix` or
    `memory://`. Raises LogError, LogFull.

    `appender`: who is about to append; in Kafka its predecessors of the same name can do so no more.
    """
    if url == "memory://":
        return SqliteLog(":memory:")
    if url.startswith("sqlite:///"):
        return SqliteLog(Path(url.removeprefix("sqlite:///")))
    if url.startswith("kafka://"):
        try:
            from collector.log_kafka import KafkaLog  # noqa: PLC0415 - only who has such a log needs its client
        except ModuleNotFoundError as error:
            raise LogError(
                f"a log in Kafka needs {error.name}; install it with pip install 'retort-gateway[kafka]'"
            ) from error
        return KafkaLog(url, kafka or KafkaSettings(), appender=appender)
    raise LogError(f"log {url!r} is not supported; write sqlite:///PATH or kafka://HOST:PORT/PREFIX")
