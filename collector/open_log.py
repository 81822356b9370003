"""From a log's URL to the log."""

from pathlib import Path

from collector.errors import LogError
from collector.log import EventLog
from collector.log_sqlite import SqliteLog


def open_log(url: str) -> EventLog:
    """The log at `sqlite:///relative/path`, `sqlite:////absolute/path` or `memory://`. Raises LogError, LogFull."""
    if url == "memory://":
        return SqliteLog(":memory:")
    if url.startswith("sqlite:///"):
        return SqliteLog(Path(url.removeprefix("sqlite:///")))
    raise LogError(f"log {url!r} is not supported; write sqlite:///PATH")
