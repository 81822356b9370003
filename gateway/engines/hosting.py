"""The versions that this engine serves, and what each is doing."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator

from gateway.engines.child import Child
from gateway.engines.errors import InvalidRequest, QueueFull, UnknownVersion
from gateway.engines.instance import Instance
from gateway.engines.protocol import Event, Options
from router.registry import Version

_DOES = {
    "generate": "writes answers; ask it at /v1/chat/completions",
    "embed": "gives vectors of texts; ask it at /v1/embeddings",
    "rank": "scores documents; ask it at /v1/rerank",
}


class Hosted:
    """One loaded version. `queue`: how many requests may be in its worker at once, waiting or decoding. `selective`:
    whether a stream says how sure the student is before its first byte, which costs the time of a few tokens."""

    def __init__(self, version: Version, child: Instance, *, queue: int, selective: bool = False) -> None:
        self.version = version
        self.child = child
        self.selective = selective
        self.decoding = 0  # of those inside
        self.hangs = False  # it was found to, and is being ended
        self._queue = queue
        self._inside = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def inside(self) -> int:
        """Requests that wait or decode now."""
        return self._inside

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """A request's place, from its arrival until its last byte was written. Raises QueueFull."""
        if self._inside >= self._queue:
            raise QueueFull
        self._inside += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._idle.set()

    @property
    def does(self) -> str:
        """What may be asked of this version: generate | embed | rank."""
        return self.child.loaded.does if isinstance(self.child, Child) else "generate"

    def must(self, does: str) -> None:
        """Raises InvalidRequest where this version does something else."""
        if self.does != does:
            raise InvalidRequest(f"The version {self.version.id!r} {_DOES[self.does]}.")

    def encoder(self, does: str) -> Child:
        """The worker that embeds, or ranks. Raises InvalidRequest."""
        self.must(does)
        assert isinstance(self.child, Child)  # noqa: S101 - no other does
        return self.child

    def generate(self, messages: list[dict[str, str]], options: Options) -> AsyncGenerator[Event, None]:
        """See Instance.generate."""
        return self.child.generate(messages, options)

    async def idle(self, timeout: float) -> bool:
        """Wait until no request is inside; False when that takes longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        return not self._inside


class Hosts:
    """The versions that answer requests, by id."""

    def __init__(self) -> None:
        self._hosted: dict[str, Hosted] = {}

    def __getitem__(self, version_id: str) -> Hosted:
        """Raises UnknownVersion."""
        try:
            return self._hosted[version_id]
        except KeyError:
            raise UnknownVersion(f"The version {version_id!r} is not served here.") from None

    def __contains__(self, version_id: str) -> bool:
        return version_id in self._hosted

    def __iter__(self) -> Iterator[Hosted]:
        return iter(list(self._hosted.values()))

    def add(self, hosted: Hosted) -> None:
        """From now on it answers."""
        self._hosted[hosted.version.id] = hosted

    def remove(self, hosted: Hosted) -> None:
        """From now on its requests get 404; those inside finish. A successor of the same id stays."""
        if self._hosted.get(hosted.version.id) is hosted:
            del self._hosted[hosted.version.id]
