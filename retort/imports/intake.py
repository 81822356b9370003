"""Exchanges on their way into the log: to the collector alone, in memory, and waited for until they are durable."""

from types import TracebackType
from typing import Self

from collector import CollectorUnavailable, Exchange, FrameSender, send_now, socket_path
from router import Events

WAITING_BYTES = 256 << 10  # sent and not yet durable, at most (or one exchange): live traffic is scrubbed behind it
PATIENCE = 180.0  # seconds without any acknowledgement: a scrub worker that has to start anew takes so long at most


class Intake:
    """Use as an async context manager. `durable`: exchanges that the collector has put into the log, or left out
    because it had them."""

    def __init__(self, state: str) -> None:
        self._path = socket_path(state)
        self._sender = FrameSender(self._path, events=Events())
        self._sent = self._bytes = 0
        self.durable = 0

    async def __aenter__(self) -> Self:
        """Raises CollectorUnavailable where no collector listens."""
        send_now(self._path, [])
        await self._sender.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sender.close()

    async def send(self, exchange: tuple[Exchange, bytes, bytes]) -> None:
        """Hand one on: the header, the request and the answer. Where much is under way already, that is waited for
        first. Raises CollectorUnavailable."""
        header, request, answer = exchange
        size = len(request) + len(answer)
        if self._sent and self._bytes + size > WAITING_BYTES:
            await self.settle()
        self._sender.send(header, request, answer)
        self._sent, self._bytes = self._sent + 1, self._bytes + size

    async def settle(self) -> None:
        """Wait until what was sent is durable. Raises CollectorUnavailable."""
        left = await self._sender.drain(PATIENCE)
        self.durable += self._sent - left
        if left:
            raise CollectorUnavailable(
                f"the collector at {self._path} has acknowledged nothing for {PATIENCE:.0f} s; "
                f"{self.durable} exchanges are imported."
            )
        self._sent = self._bytes = 0
