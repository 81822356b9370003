"""Whose data an interaction is, and its record for the log, sealed with that subject's key."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from collector.errors import LogError
from collector.frames import Exchange
from collector.log import Record
from collector.record import Interaction, encode
from collector.subjects import SubjectKeys
from router import Events

log = logging.getLogger("retort.collector")

T = TypeVar("T")

# Where a request names its user, by what clients of the API write there.
PLACES = (("user",), ("safety_identifier",), ("metadata", "user_id"))
FIRST_RETRY, LONGEST_RETRY = 0.2, 5.0


class Sealing:
    """Waits as long as the subjects' database can't be used: nothing is acknowledged before, so nothing is lost."""

    def __init__(self, keys: SubjectKeys, events: Events) -> None:
        self._keys = keys
        self._events = events
        self._one = asyncio.Lock()  # asks at a time: the database does no more, and while it is away, all wait for one

    async def name(self, exchange: Exchange, request: dict[str, Any], clean: dict[str, Any]) -> str:
        """As `subject`; in the clean request hashes stand in place of the users' names."""
        for above, place, said in users(request):
            if said:
                at(clean, above)[place] = await self._patiently(self._keys.hashed, said)
        return await self.subject(exchange, request)

    async def subject(self, exchange: Exchange, request: dict[str, Any]) -> str:
        """The hash of who is named first, by the header or else in the request; "" where nobody is."""
        named = (exchange.subject or "", *(said for _, _, said in users(request)))
        first = next(filter(None, named), "")
        return await self._patiently(self._keys.hashed, first) if first else ""

    async def record(self, made: Interaction, *, at: float) -> Record:
        """For the log. `at`: since when it is kept."""
        value = encode(made, await self.key(made.subject, at=at))
        return Record(id=made.id, key=made.route, at=at, value=value, subject=made.subject)

    async def key(self, subject: str, *, at: float) -> bytes | None:
        """A hashed subject's key, for what is kept since `at`; None of nobody."""
        return await self._patiently(partial(self._keys.key, at=at), subject) if subject else None

    async def _patiently(self, ask: Callable[[str], T], name: str) -> T:
        async with self._one:
            wait = FIRST_RETRY
            while True:
                try:
                    found = await asyncio.to_thread(ask, name)
                except LogError as error:
                    if wait == FIRST_RETRY:
                        log.error("collector.subjects_failed", extra={"error": str(error)})
                    self._events.emit("collector.subjects_failed")
                else:
                    if wait > FIRST_RETRY:
                        log.info("collector.subjects_back")
                    return found
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_RETRY)


def users(request: dict[str, Any]) -> Iterator[tuple[Sequence[str], str, str]]:
    """Where a request names its user (above, and the key there), and as whom."""
    for *above, place in PLACES:
        said = at(request, above).get(place)
        if isinstance(said, str | int | float) and not isinstance(said, bool):
            yield above, place, str(said)


def at(request: dict[str, Any], place: Sequence[str]) -> dict[str, Any]:
    """What stands at a place; something empty where nothing does."""
    for name in place:
        inner = request.get(name)
        request = inner if isinstance(inner, dict) else {}
    return request
