"""Which version goes before which, where not all can be loaded, or not at once: what serves, then what is under test,
then new candidates, then what has ended."""

from collections.abc import Iterable, Mapping

from router.registry import RANK, Stage, Version


class Precedence:
    """Loaded versions give way where a more important one finds no memory; they stay out as long as that one is wanted,
    or until another has left."""

    def __init__(self) -> None:
        self._gave_way: dict[str, str] = {}  # version -> for which

    def give_way(self, version: Version, wanted: Mapping[str, Version], loaded: Iterable[str]) -> str | None:
        """`version` finds no room: which of the `loaded` is to leave for it, the last of `wanted` that matters less;
        None where all matter as much."""
        there = set(loaded)
        for other in reversed(list(wanted.values())):
            if other.id in there and RANK[other.stage] > RANK[version.stage]:
                self._gave_way[other.id] = version.id
                return other.id
        return None

    def stays_out(self, version_id: str, wanted: Mapping[str, Version]) -> bool:
        """Whether it has given way to what is still wanted, and still matters more."""
        heir = wanted.get(self._gave_way.get(version_id, ""))
        mine = wanted.get(version_id)
        if heir is None or mine is None or RANK[mine.stage] <= RANK[heir.stage]:
            self._gave_way.pop(version_id, None)
        return version_id in self._gave_way

    def left(self, version_id: str) -> str | None:
        """A version is no longer loaded: for which it gave way. Where for none, its room is for whoever stayed out."""
        if version_id not in self._gave_way:
            self._gave_way.clear()
        return self._gave_way.get(version_id)


def interrupts(version: Version, loading: Version) -> bool:
    """Whether what is `loading` is to wait for `version`: users wait for that one."""
    return version.stage is Stage.LIVE and loading.stage is not Stage.LIVE
