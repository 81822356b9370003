"""The seam between the engine and what serves one version: a worker process of ours, or a server of vLLM's."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from gateway.engines.protocol import Event, Options


class Instance(Protocol):
    """One loaded version. `gone` is set when it has ended, wanted or not."""

    gone: asyncio.Event

    @property
    def pid(self) -> int | None:
        """Of the process that holds it; None where that is not on this machine."""

    @property
    def place(self) -> object:
        """What it runs in. When one comes to a place, or goes, the answers of others there might change."""

    @property
    def ending(self) -> str:
        """How it ended, in words."""

    @property
    def silent(self) -> float:
        """For how many seconds nothing has come although something is due."""

    def kill(self) -> None:
        """End it, as a fault; `gone` is set when it has ended."""

    def generate(self, messages: Sequence[dict[str, str]], options: Options) -> AsyncGenerator[Event, None]:
        """The events of one answer: Started, Assessed where it is asked for, Pieces, Done. Closing the generator early
        cancels the decoding.

        Raises ContextTooLong, InvalidRequest, DecodeFailed, WorkerGone.
        """

    async def close(self) -> object:
        """End it, and wait until it has."""
