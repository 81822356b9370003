"""Capture, scrubbing, the interaction log, and the promoter."""

from collector.errors import CollectorError, CollectorUnavailable, LogError, LogFull, ScrubError
from collector.frames import Call, Exchange, Happened, Header, socket_path
from collector.log import Entry, EventLog, Record, Stream
from collector.open_log import open_log
from collector.send import FrameSender, send_now

__all__ = [
    "Call",
    "CollectorError",
    "CollectorUnavailable",
    "Entry",
    "EventLog",
    "Exchange",
    "FrameSender",
    "Happened",
    "Header",
    "LogError",
    "LogFull",
    "Record",
    "ScrubError",
    "Stream",
    "open_log",
    "send_now",
    "socket_path",
]
