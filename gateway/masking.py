"""What a teacher is sent of a request on a route that masks: asked of the collector once, and never without it."""

import asyncio
import time
from typing import Protocol

import msgspec

from collector import MASK_SECONDS, CollectorUnavailable, MaskReply, ScrubError
from gateway.body import Body
from gateway.errors import MaskingUnavailable, Unmaskable
from gateway.routes import Route
from gateway.unmask import Originals
from router import Events


class Masker(Protocol):
    """Who masks; collector.MaskClient is the real one."""

    async def mask(self, route: str, cluster: str, body: bytes, *, seconds: float) -> MaskReply:
        """Raises CollectorUnavailable, ScrubError."""

    async def reachable(self) -> bool:
        """Whether it can be asked, now."""


class Masked(msgspec.Struct, frozen=True):
    """A request for teachers. `originals`: what to put back in their answers; None where nothing was replaced.

    `spent`: seconds that it took, to a tenth.
    """

    body: bytes
    originals: Originals | None
    spent: float


class Masking:
    """Of one request. Nothing of it outlives the request."""

    def __init__(self, masker: Masker, events: Events, route: Route, cluster: str, body: Body) -> None:
        self._masker = masker
        self._events = events
        self._route = route
        self._cluster = cluster
        self._body = body
        self._lock = asyncio.Lock()
        self._found: Masked | None = None

    async def masked(self) -> Masked:
        """Raises NotMasked; then no teacher may be called."""
        async with self._lock:
            if self._found is None:
                self._found = await self._mask()
                return self._found
        return msgspec.structs.replace(self._found, spent=0.0)

    async def _mask(self) -> Masked:
        began = time.perf_counter()
        seconds = min(MASK_SECONDS, self._route.deadline)
        outcome = "cancelled"
        try:
            reply = await self._masker.mask(self._route.name, self._cluster, self._body.raw, seconds=seconds)
            outcome = "ok"
        except CollectorUnavailable as error:
            outcome = MaskingUnavailable.constant
            raise MaskingUnavailable from error
        except ScrubError as error:
            outcome = Unmaskable.constant
            raise Unmaskable(
                f"This route masks what goes to a teacher, and can't mask this request: {error}."
            ) from error
        finally:
            spent = time.perf_counter() - began
            self._events.emit("gateway.masked", route=self._route.name, outcome=outcome, seconds=spent)
        # Rounded, as the upstream keeps what it prepares for each patience.
        return Masked(reply.body, Originals(reply.pairs) if reply.pairs else None, round(spent, 1))
