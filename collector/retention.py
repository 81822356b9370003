"""What is older than its route's `capture.retention_days` is forgotten. Evidence, which holds no text, stays.

What was forgotten, or erased while a reader kept it from being overwritten, is then overwritten.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from collector.errors import LogError
from collector.log import EventLog, Stream
from collector.subjects import SubjectKeys
from router import Config

log = logging.getLogger("retort.collector")

EVERY_SECONDS = 600.0
SCOUR_SECONDS = 1.0  # in which nothing is appended
DAY = 86400.0
STREAMS = (Stream.INTERACTIONS, Stream.QUARANTINE, Stream.FEEDBACK)


async def keep_no_longer(
    config: Config, kept: EventLog, subjects: SubjectKeys, *, clock: Callable[[], float] = time.time
) -> None:
    """Forget what is too old, now and then, until cancelled."""
    while True:
        for route, policy in config.routes.items():
            before = clock() - policy.capture.retention_days * DAY
            try:
                for stream in STREAMS:
                    await asyncio.to_thread(kept.expire, stream, key=route, before=before)
            except LogError as error:
                log.error("collector.retention_failed", extra={"route": route, "error": str(error)})
        for name, scour in (("log", kept.scour), ("subjects", subjects.scour)):
            try:
                if not await asyncio.to_thread(scour, seconds=SCOUR_SECONDS):
                    log.warning("collector.not_overwritten", extra={"database": name, "again_in": EVERY_SECONDS})
            except LogError as error:
                log.error("collector.retention_failed", extra={"database": name, "error": str(error)})
        await asyncio.sleep(EVERY_SECONDS)
