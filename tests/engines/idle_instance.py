"""An instance that nobody has to load."""

import asyncio


class IdleInstance:
    """One that was never asked for anything, in a place of its own."""

    ending, silent = "it ended", 0.0

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.place = self
        self.pid: int | None = None
        self.stay = 0.0  # seconds that its end takes

    def kill(self) -> None:
        self.gone.set()

    async def close(self) -> None:
        await asyncio.sleep(self.stay)
        self.gone.set()
