"""What can go wrong in the collector.

CollectorError
├── CollectorUnavailable  nobody answers on the socket; may be retried
├── LogError              the log can't be written or read; may be retried
│   ├── LogFull           no space left where the log is; may be retried
│   └── RecordUnreadable  what stands in the log is no record, or its key is another
├── SpoolError            a spooled frame can't be read with this key
├── Overloaded            more waits already than may wait; may be retried
├── JudgeFailed           the judge gave no verdict on a pair; the pair says nothing
└── ScrubError            a record can't be scrubbed; it goes to quarantine without its text
"""

import traceback


class CollectorError(Exception):
    """An error of the collector."""

    retryable = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class CollectorUnavailable(CollectorError):
    """No collector answers on its socket."""

    retryable = True


class LogError(CollectorError):
    """The log can't be written or read."""

    retryable = True


class LogFull(LogError):
    """No space is left where the log is."""


class RecordUnreadable(LogError):
    """A record of the log can't be read."""

    retryable = False


class SpoolError(CollectorError):
    """A spooled frame can't be read."""


class Overloaded(CollectorError):
    """More waits already than may wait."""

    retryable = True


class JudgeFailed(CollectorError):
    """The judge gave no verdict on a pair. `reason`: a short constant."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the judge gave no verdict: {reason}")
        self.reason = reason


class ScrubError(CollectorError):
    """A record can't be scrubbed."""


def without_text(error: Exception) -> dict[str, object]:
    """What may be logged of an error that came while personal data was at hand: its message may quote it."""
    frames = traceback.extract_tb(error.__traceback__)
    return {"error": type(error).__name__, "place": f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None}
