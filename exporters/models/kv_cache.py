"""The memory of keys and values: room for every row's whole context is reserved, and taken as tokens come."""

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class KvCache:
    """`arrays`: of each layer keys and values, [rows, heads, context, width]. `shape`: heads, context, width.
    `most`: how many tokens fit into `most_bytes`, over all rows. `taken`: for how many each row has memory."""

    def __init__(
        self, *, layers: int, rows: int, shape: tuple[int, int, int], kind: np.dtype[Any], most_bytes: float
    ) -> None:
        heads, self._context, width = shape
        self._heads, self._stride = heads, self._context * width * kind.itemsize
        self._token = width * kind.itemsize
        self.most = int(most_bytes // (2 * layers * heads * self._token))
        self._memory = [_reserved(rows * heads * self._stride) for _ in range(2 * layers)]
        self.arrays: list[npt.NDArray[Any]] = [
            np.frombuffer(memory, kind).reshape(rows, *shape) for memory in self._memory
        ]
        self.taken = [0] * rows

    def take(self, row: int, length: int) -> None:
        """A row holds so many tokens now."""
        self.taken[row] = max(self.taken[row], length)

    def room(self, tokens: int, needed: Sequence[int]) -> bool:
        """Whether so many more tokens fit beside the `needed` ones of each row. What the rows hold beyond those is
        given back as far as it must be, the most first."""
        while sum(self.taken) + tokens > self.most:
            row = max(range(len(needed)), key=lambda row: self.taken[row] - needed[row])
            if self.taken[row] <= needed[row]:
                return False
            self._give_back(row, needed[row])
        return True

    def copy(self, source: int, row: int, length: int) -> None:
        """The first tokens of one row to another."""
        for array in self.arrays:
            array[row, :, :length] = array[source, :, :length]
        self.take(row, length)

    def swap(self, one: int, other: int, lengths: tuple[int, int]) -> None:
        """Let two rows, of these lengths, change places."""
        first, second = lengths
        for array in self.arrays:
            held = array[one, :, :first].copy()
            array[one, :, :second] = array[other, :, :second]
            array[other, :, :first] = held
        self.take(one, second)
        self.take(other, first)

    def _give_back(self, row: int, length: int) -> None:
        self.taken[row] = length
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        for head in range(row * self._heads, (row + 1) * self._heads):
            first = -(-(head * self._stride + length * self._token) // mmap.PAGESIZE) * mmap.PAGESIZE
            last = (head + 1) * self._stride // mmap.PAGESIZE * mmap.PAGESIZE
            for memory in self._memory if last > first else ():
                memory.madvise(mmap.MADV_DONTNEED, first, last - first)


def _reserved(size: int) -> mmap.mmap:
    """Zeros of which only what is written takes memory, in small pages (NumPy's own would be huge ones)."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory
