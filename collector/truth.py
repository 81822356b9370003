"""Pairs that wait for the right answer. Their texts are unscrubbed, so they are kept in memory alone: bounded in bytes
and in time, and gone with the process."""

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from collector.pairs import Pair
from collector.parse import Completion

MOST_BYTES = 64 << 20
_OBJECT_BYTES = 2000  # of a pair, besides its texts
_PER_BYTE = 3  # bytes in memory for one on the wire


class _Kept(msgspec.Struct, frozen=True):
    pairs: Sequence[Pair]
    until: float
    size: int


class Truths:
    """By request id, the oldest first."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    def keep(self, request_id: str, pairs: Sequence[Pair], *, until: float, size: int) -> int:
        """Keep the pairs of an exchange until then (Unix seconds); `size`: its bytes on the wire. Returns how many
        exchanges had to make room."""
        taken = _OBJECT_BYTES + _PER_BYTE * size
        self._kept[request_id] = _Kept(pairs, until, taken)
        self._bytes += taken
        pushed = 0
        while self._bytes > self._most_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].size
            pushed += 1
        return pushed

    def take(self, request_id: str, now: float) -> Sequence[Pair] | None:
        """The pairs of a request, once; None where there are none, or no more."""
        found = self._kept.pop(request_id, None)
        if found is None:
            return None
        self._bytes -= found.size
        return found.pairs if now <= found.until else None

    def expire(self, now: float) -> None:
        """Forget what has waited long enough."""
        while self._kept and next(iter(self._kept.values())).until < now:
            self._bytes -= self._kept.popitem(last=False)[1].size


def right_answer(text: str) -> Completion:
    """What a client says is right: a text, or the JSON of a whole assistant message (with tool calls, say)."""
    message: dict[str, object] = {"role": "assistant", "content": text}
    try:
        said = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        said = None
    if isinstance(said, dict) and said.get("role") == "assistant":
        message = said
    return Completion(message=message, finish_reason="stop")
