from pathlib import Path
from typing import Any

import pytest
from retrainer_fakes import CountedLog, fill, interaction, teacher

from collector import Interactions, Record, Stream, SubjectKeys
from collector.record import encode
from retrainer.data.dataset import Dataset, Options, build, load, write
from retrainer.errors import CycleError, NotEnoughExamples
from router.policy_data import DataPolicy


def made_of(log: CountedLog, keys: SubjectKeys, **options: Any) -> Dataset:
    return build(Interactions(log, keys), "colours", **{"max_examples": 1000, **options})


def test_the_manifest_counts_what_every_filter_dropped_and_shows_samples(log: CountedLog, keys: SubjectKeys) -> None:
    fill(log, [interaction(n) for n in range(200)])
    fill(log, [interaction(n, answers=(teacher("a", status=500),)) for n in range(200, 207)])
    fill(log, [interaction(n, route="other") for n in range(300, 310)])
    made = made_of(log, keys)
    dropped = made.manifest.dropped["teacher_failed"]
    assert dropped.count == 7
    assert len(dropped.samples) == 5
    assert dropped.samples[0]["id"] == "x200"
    assert made.manifest.read == 207
    assert sum(made.manifest.counts.values()) + sum(d.count for d in made.manifest.dropped.values()) == 207
    assert made.manifest.upstreams == {"up/m": 200}


def test_the_same_log_gives_the_same_data_set(log: CountedLog, keys: SubjectKeys) -> None:
    fill(log, [interaction(n) for n in range(150)])
    one, two = (
        made_of(log, keys),
        made_of(log, keys),
    )
    assert one == two
    fill(log, [interaction(500)])
    assert made_of(log, keys).manifest.digest != one.manifest.digest
    assert made_of(log, keys, end=one.manifest.end).manifest.digest == one.manifest.digest


def test_no_group_stands_on_two_sides(log: CountedLog, keys: SubjectKeys) -> None:
    fill(log, [interaction(n, cluster=f"c{n % 40}") for n in range(200)])
    made = made_of(log, keys)
    groups = [{e.group for e in part} for part in (made.train, made.validation, made.test)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


def test_only_the_newest_examples_are_used_when_there_are_too_many(log: CountedLog, keys: SubjectKeys) -> None:
    fill(log, [interaction(n) for n in range(200)])
    made = made_of(log, keys, max_examples=120, options=Options(policy=DataPolicy(replay=0.0)))
    assert sum(made.manifest.counts.values()) == 120
    oldest = min(e.at for e in (*made.train, *made.held_out))
    assert made.manifest.dropped["too_old"].count == 200 - 120 - made.manifest.dropped.get("torn", _none()).count
    assert oldest >= 1000 + 70


def test_long_examples_are_dropped(log: CountedLog, keys: SubjectKeys) -> None:
    fill(log, [interaction(n) for n in range(150)])
    made = made_of(log, keys, fits=lambda e: e.id != "x3")
    assert made.manifest.dropped["too_long"].samples[0]["id"] == "x3"


def test_too_few_examples_are_an_error_that_says_how_many(log: CountedLog, keys: SubjectKeys) -> None:
    fill(log, [interaction(n) for n in range(5)])
    with pytest.raises(NotEnoughExamples, match=r"of 5 records; at least 8"):
        made_of(log, keys)


def test_a_written_data_set_reads_back_and_a_changed_one_is_refused(
    log: CountedLog, keys: SubjectKeys, tmp_path: Path
) -> None:
    fill(log, [interaction(n) for n in range(150)])
    made = made_of(log, keys)
    write(made, tmp_path / "dataset")
    assert load(tmp_path / "dataset") == made
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dataset"]
    test = tmp_path / "dataset" / "test.jsonl"
    test.write_bytes(test.read_bytes().replace(b"red", b"blue"))
    with pytest.raises(CycleError, match="not what its manifest says"):
        load(tmp_path / "dataset")


def test_records_of_an_erased_subject_are_in_no_data_set(log: CountedLog, keys: SubjectKeys) -> None:
    fill(log, [interaction(n) for n in range(150)])
    hers = interaction(7, id="hers", subject="jane")
    value = encode(hers, keys.key("jane"))
    log.append([(Stream.INTERACTIONS, Record(id="hers", key="colours", at=1.0, value=value, subject="jane"))])
    assert made_of(log, keys).manifest.read == 151
    keys.destroy("jane")
    assert made_of(log, keys).manifest.read == 150


def _none() -> object:
    class _Zero:
        count = 0

    return _Zero()
