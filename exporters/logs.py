"""Log lines: `time level logger event key=value ...`."""

import logging
from enum import Enum

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """An event's constant name, then its fields (`extra`)."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = super().format(record)
        named = vars(record).items()
        given = {key: value for key, value in named if key not in _STANDARD and not key.startswith("_")}  # a library's
        fields = " ".join(f"{k}={(v.value if isinstance(v, Enum) else v)!r}" for k, v in given.items())
        return f"{line} {fields}" if fields else line
