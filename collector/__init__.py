"""Capture, scrubbing, the interaction log, and the promoter."""

from collector.errors import (
    CollectorError,
    CollectorUnavailable,
    JudgeFailed,
    LogError,
    LogFull,
    Overloaded,
    ScrubError,
    SpoolError,
)
from collector.frames import (
    IMPORTED,
    REPORTED,
    Call,
    Exchange,
    Feedback,
    Happened,
    Header,
    refused_by_both,
    socket_path,
)
from collector.interactions import LATEST, Interactions, open_interactions
from collector.log import Entry, EventLog, Record, Stream
from collector.mask_client import MaskClient
from collector.mask_frames import MASK_SECONDS, MaskReply, mask_socket
from collector.newest import NewestRight
from collector.open_log import open_log
from collector.record import Answer, Interaction, RightAnswer
from collector.record import decode as decode_interaction
from collector.salt import SALT_BYTES, read_salt
from collector.send import FrameSender, send_now
from collector.spool import Spool, open_spool
from collector.subjects import SubjectKeys, open_subjects

__all__ = [
    "IMPORTED",
    "LATEST",
    "MASK_SECONDS",
    "REPORTED",
    "SALT_BYTES",
    "Answer",
    "Call",
    "CollectorError",
    "CollectorUnavailable",
    "Entry",
    "EventLog",
    "Exchange",
    "Feedback",
    "FrameSender",
    "Happened",
    "Header",
    "Interaction",
    "Interactions",
    "JudgeFailed",
    "LogError",
    "LogFull",
    "MaskClient",
    "MaskReply",
    "NewestRight",
    "Overloaded",
    "Record",
    "RightAnswer",
    "ScrubError",
    "Spool",
    "SpoolError",
    "Stream",
    "SubjectKeys",
    "decode_interaction",
    "mask_socket",
    "open_interactions",
    "open_log",
    "open_spool",
    "open_subjects",
    "read_salt",
    "refused_by_both",
    "send_now",
    "socket_path",
]
