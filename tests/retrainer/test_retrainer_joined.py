"""A record keeps its side when the first of its group has gone from the log."""

import random
from pathlib import Path

import pytest
from data_route import Route, sides
from retrainer_fakes import CountedLog, fill, interaction

from collector import SubjectKeys
from collector.record import Interaction
from retrainer.data.joined import Joined, joined_file
from retrainer.errors import CycleError


def triples() -> list[Interaction]:
    """Of each three, the second is a near-duplicate of the first, and the third says the second's very words in a
    conversation that says other words later."""
    made = []
    for n in range(0, 240, 3):
        said = words(n)
        made += [
            asked(n, said),
            asked(n + 1, f"{said}!"),
            asked(n + 2, f"{said}!"),
            asked(1000 + n, words(1000 + n), n + 2),
        ]
    return made


def words(number: int) -> str:
    """Unlike any other number's."""
    draw = random.Random(number)
    return " ".join(f"{draw.randrange(1 << 24):06x}" for _ in range(40))


def asked(number: int, text: str, conversation: int | None = None) -> Interaction:
    cluster = f"c{number if conversation is None else conversation}"
    return interaction(number, cluster=cluster, request={"messages": [{"role": "user", "content": text}]})


@pytest.mark.parametrize("gone", [1, 2])
def test_no_record_changes_side_when_the_first_of_its_group_has_gone(
    log: CountedLog, keys: SubjectKeys, tmp_path: Path, gone: int
) -> None:
    records, file = triples(), joined_file(tmp_path, "colours")
    policy = {"most_alike": 100}
    fill(log, records)
    whole = sides(Route(log, keys).made(policy=policy, joined=file))
    left = [r for n, r in enumerate(records) if n % 4 >= gone]
    later = CountedLog()
    fill(later, left)
    alone = sides(Route(later, keys).made(policy=policy))
    remembered = sides(Route(later, keys).made(policy=policy, joined=file))
    later.close()
    there = whole.keys() & remembered.keys() & alone.keys()
    assert len(there) >= 150
    assert sum(alone[name] != whole[name] for name in there) > 20, "or nothing had to be remembered"
    assert {name for name in there if remembered[name] != whole[name]} == set()


def test_a_prompt_in_a_later_conversation_stays_where_it_stood_when_whoever_said_it_first_has_gone(
    log: CountedLog, keys: SubjectKeys, tmp_path: Path
) -> None:
    """Word for word, in conversations that begin with words of their own."""
    file = joined_file(tmp_path, "colours")
    records = []
    for n in range(0, 300, 3):
        records += [asked(n, words(n)), asked(n + 1, words(n + 1)), asked(2000 + n, words(n), n + 1)]
    fill(log, records)
    made = Route(log, keys).made(joined=file)
    whole = sides(made)
    later = CountedLog()
    fill(later, [r for r in records if int(r.id[1:]) % 3 or int(r.id[1:]) >= 2000])
    alone, remembered = (sides(Route(later, keys).made(joined=path)) for path in (None, file))
    later.close()
    there = whole.keys() & remembered.keys() & alone.keys()
    assert sum(alone[name] != whole[name] for name in there) > 10, "or nothing had to be remembered"
    assert {name for name in there if remembered[name] != whole[name]} == set()


def test_what_resembled_two_sides_draws_nobody_across_when_one_of_them_has_gone(
    log: CountedLog, keys: SubjectKeys, tmp_path: Path
) -> None:
    """A conversation whose first words stand alone, then resemble another's on the other side, then stand alone."""
    file = joined_file(tmp_path, "colours")
    records = [asked(n, words(n)) for n in range(200)]
    talks = [(1000 + n, n) for n in range(200)]
    for talk, other in talks:
        records += [asked(talk, words(talk)), asked(2000 + talk, f"{words(other)}!", talk)]
        records.append(asked(4000 + talk, words(4000 + talk), talk))
    fill(log, records)
    whole = sides(Route(log, keys).made(joined=file))
    later = CountedLog()
    fill(later, [r for r in records if not 1000 <= int(r.id[1:]) < 2000])
    alone, remembered = (sides(Route(later, keys).made(joined=path)) for path in (None, file))
    later.close()
    there = whole.keys() & remembered.keys() & alone.keys()
    assert sum(alone[name] != whole[name] for name in there) > 10, "or nothing had to be remembered"
    assert {name for name in there if remembered[name] != whole[name]} == set()


def test_a_copy_is_a_file_of_its_own(tmp_path: Path) -> None:
    with Joined(tmp_path / "joined.db") as joined:
        joined.copy(tmp_path / "nothing.db")
        joined.keep(iter([(1, "a")]))
    with Joined(tmp_path / "joined.db") as joined:
        joined.copy(tmp_path / "copy.db")
        joined.keep(iter([(2, "b")]))
    for name, known in (("nothing.db", []), ("copy.db", [1]), ("joined.db", [1, 2])):
        with Joined(tmp_path / name) as joined:
            assert [n for n in (1, 2) if joined.group(n)] == known


def test_what_has_a_say_is_in_the_lineage(log: CountedLog, keys: SubjectKeys, tmp_path: Path) -> None:
    file = joined_file(tmp_path, "colours")
    fill(log, triples())
    assert "joined" not in Route(log, keys).made(joined=file).manifest.files
    assert Route(log, keys).made(joined=file).manifest.files["joined"].startswith("sha256:")


def test_a_file_that_can_not_be_used_is_told(log: CountedLog, keys: SubjectKeys, tmp_path: Path) -> None:
    file = tmp_path / "joined.db"
    file.write_bytes(b"no database, and long enough to be told from one" * 40)
    fill(log, triples())
    with pytest.raises(CycleError, match=r"joined.db can't be used .*not a database.*Remove it if it is lost"):
        Route(log, keys).made(joined=file)


def test_what_was_joined_first_stays(tmp_path: Path) -> None:
    file = tmp_path / "joined.db"
    with Joined(file) as joined:
        joined.keep(iter([(1, "a"), (-(2**63), "b")]))
        joined.keep(iter([(1, "c"), (2, "d")]))
        assert joined.group(1) is None, "what this reading began with"
    with Joined(file) as joined:
        assert [joined.group(n) for n in (1, -(2**63), 2, 3)] == ["a", "b", "d", None]
