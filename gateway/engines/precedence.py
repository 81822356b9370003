"""Which version goes before which, where not all can be loaded, or not at once: what serves, then what is under test,
then new candidates, then what has ended."""

from collections.abc import Mapping

from router.registry import RANK, Stage, Version


class Precedence:
    """Loaded versions give way where a more important one finds no memory; they stay out as long as that one is wanted,
    or until another has left."""

    def __init__(self) -> None:
        self._gave_way: dict[str, str] = {}  # version -> for which
        self._in_vain: dict[str, set[str]] = {}  # version -> which ones gave way to it for nothing

    def give_way(
        self, version: Version, wanted: Mapping[str, Version], frees: Mapping[str, float], *, lacks: float
    ) -> str | None:
        """`version` finds no room, for `lacks` bytes: which of the loaded ones is to leave for it, the last of `wanted`
        that matters less. `frees`: how many bytes each of them would give. None where that would not be enough, or
        was not: then those that gave way to it may come back."""
        lesser = [
            other.id
            for other in wanted.values()
            if frees.get(other.id, 0.0) > 0 and RANK[other.stage] > RANK[version.stage]
        ]
        in_vain = self._in_vain.get(version.id, set())
        if not set(lesser) - in_vain or sum(frees[other] for other in lesser) < lacks:
            gave_way = {other for other, heir in self._gave_way.items() if heir == version.id}
            self.given_up(version.id)
            self._in_vain[version.id] = in_vain | gave_way
            return None
        self._gave_way[lesser[-1]] = version.id
        return lesser[-1]

    def stays_out(self, version_id: str, wanted: Mapping[str, Version]) -> bool:
        """Whether it has given way to what is still wanted, and still matters more."""
        heir = wanted.get(self._gave_way.get(version_id, ""))
        mine = wanted.get(version_id)
        if heir is None or mine is None or RANK[mine.stage] <= RANK[heir.stage]:
            self._gave_way.pop(version_id, None)
        return version_id in self._gave_way

    def left(self, version_id: str) -> set[str]:
        """A version is no longer loaded: which others may find room now. That is the one it gave way to; where it gave
        way to none, all that others gave way to, and those others stay out no more."""
        if version_id in self._gave_way:
            return {self._gave_way[version_id]}
        heirs = set(self._gave_way.values()) | self._in_vain.keys()
        self._gave_way.clear()
        self._in_vain.clear()
        return heirs - {version_id}

    def given_up(self, version_id: str) -> None:
        """It is not loaded after all: who gave way to it may come back."""
        self._in_vain.pop(version_id, None)
        self._gave_way = {other: heir for other, heir in self._gave_way.items() if heir != version_id}


def interrupts(version: Version, loading: Version) -> bool:
    """Whether what is `loading` is to wait for `version`: users wait for that one."""
    return version.stage is Stage.LIVE and loading.stage is not Stage.LIVE
