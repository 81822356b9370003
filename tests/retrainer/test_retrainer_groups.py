import hashlib
import sqlite3
from collections.abc import Sequence

import numpy as np
import pytest
from retrainer_fakes import example

from retrainer.data.curate import Example, Side
from retrainer.data.frames import prompt_text
from retrainer.data.groups import Groups, Place, side
from retrainer.data.joined import Joined
from retrainer.data.minhash import least_hashes, similarity, sketch


def placed(examples: Sequence[Example]) -> list[Place]:
    groups = Groups(sqlite3.connect(":memory:"), Joined(None))
    return [place(groups, e) for e in examples]


def place(groups: Groups, e: Example) -> Place:
    text = prompt_text(e.messages)
    key = hashlib.sha256(text.encode()).digest()
    known = groups.known(key)
    if known is not None:
        groups.again(known, key, e.cluster)
    return known or groups.place(key, e.cluster, sketch(prompt_text(e.messages)))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_sketches_agree_as_often_as_the_texts_shingles_do(share: float) -> None:
    draw = np.random.default_rng(5)
    errors = []
    for _ in range(60):
        words = [f"w{n}" for n in draw.integers(0, 10**6, size=60)]
        first, second = " ".join(words), " ".join(words[: int(60 * share)])
        grams = [{t[i : i + 5] for i in range(len(t) - 4)} for t in (first, second)]
        jaccard = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        errors.append(float((least_hashes(first) == least_hashes(second)).mean()) - jaccard)
    assert abs(np.mean(errors)) < 0.03
    assert np.std(errors) < 0.05, "0.5/sqrt(128) is 0.044"


def test_a_text_shorter_than_a_shingle_has_a_sketch_too() -> None:
    assert not (least_hashes("a") == least_hashes("b")).all()
    assert (least_hashes("") == least_hashes("")).all()


@pytest.mark.parametrize(("index", "least", "most"), [(0.9, 0.995, 1.0), (0.8, 0.9, 1.0), (0.65, 0.0, 0.1)])
def test_pairs_are_found_from_the_stated_index_on(index: float, least: float, most: float) -> None:
    """Pairs of texts, of which one is other words after a common beginning, among prompts of one pattern."""
    draw = np.random.default_rng(7)
    found, made = 0, 0
    groups = Groups(sqlite3.connect(":memory:"), Joined(None))
    while made < 400:
        kept, other = (" ".join(f"{n:06x}" for n in draw.integers(0, 1 << 24, size=60)) for _ in range(2))
        cut = int(len(kept) * 2 * index / (1 + index)) + int(draw.integers(-4, 5))
        first, second = f"please sort this: {kept}", f"please sort this: {kept[:cut]}{other[: len(kept) - cut]}"
        grams = [{t[i : i + 5] for i in range(len(t) - 4)} for t in (first, second)]
        if abs(len(grams[0] & grams[1]) / len(grams[0] | grams[1]) - index) > 0.005:
            continue
        pair = [place(groups, example(2 * made + n, text=text)) for n, text in enumerate((first, second))]
        found += pair[1].alike == pair[0].seq
        made += 1
    assert least <= found / made <= most


def test_the_estimate_is_the_jaccard_index_though_it_knows_a_byte_of_each_number() -> None:
    one, other = (sketch(text).marks for text in ("abcdefgh" * 9, "stuvwxyz" * 9))
    assert similarity(one, np.stack([one, other])) == pytest.approx([1.0, 0.0], abs=0.03)


def test_a_conversation_that_begins_with_a_known_prompt_joins_its_group_and_another_stays_where_it_is() -> None:
    first, second = (example(n, cluster="one") for n in (1, 2))
    begins, goes_on = example(1, cluster="two"), example(3, cluster="two")
    elsewhere, amid, later = example(4, cluster="three"), example(1, cluster="three"), example(5, cluster="three")
    found = placed([first, second, begins, goes_on, elsewhere, amid, later])
    assert [p.group for p in found[:4]] == [found[0].group] * 4
    assert (found[5].group, found[6].group) == (found[0].group, found[4].group)
    assert found[4].group != found[0].group


def test_near_duplicates_and_conversations_share_a_group() -> None:
    text = "how do I configure the printer in the big office on the third floor of building nine"
    near = [example(1, text=text), example(2, text=text + "?"), example(3, text=text.upper())]
    same = [example(4, cluster="talk"), example(5, cluster="talk")]
    found = placed([*near, *same, example(6)])
    assert len({p.group for p in found[:3]}) == 1
    assert {p.alike for p in found[:3]} == {0}
    assert len({p.group for p in found[3:5]}) == 1
    assert found[4].alike == found[4].seq, "one conversation, and no duplicate"
    assert len({p.group for p in found}) == 3
    assert not any(p.torn for p in found)


def test_a_shared_system_prompt_alone_makes_no_group() -> None:
    one, two = placed([example(1, text="what is rust"), example(2, text="bake me a cake")])
    assert one.group != two.group


def test_a_record_never_changes_side_when_the_log_grows() -> None:
    records = [example(n) for n in range(120)]
    early, late = placed(records[:60]), placed(records)
    assert [(p.group, p.torn) for p in early] == [(p.group, p.torn) for p in late[:60]]


def test_a_record_that_joins_two_sides_is_left_out_and_leads_nobody_else_across() -> None:
    """Two conversations on different sides, then one record near to a record of each."""
    first = example(1, text="alpha beta gamma delta epsilon")
    second = next(
        candidate
        for candidate in (example(n, text=f"unrelated text number {n} about boats") for n in range(2, 200))
        if len({side(p.group) for p in placed([first, candidate])}) == 2
    )
    bridge = example(999, text="alpha beta gamma delta epsilon?", cluster=second.cluster)
    late = example(1000, text="alpha beta gamma delta epsilon??")
    found = placed([first, second, bridge, late])
    assert [p.torn for p in found] == [False, False, True, False]
    assert found[3].group == found[0].group


def test_the_split_is_near_eighty_ten_ten() -> None:
    sides = [side(f"g{n}") for n in range(5000)]
    assert 0.78 < sides.count(Side.TRAIN) / 5000 < 0.82
    assert 0.085 < sides.count(Side.VALIDATION) / 5000 < 0.115
    assert 0.085 < sides.count(Side.TEST) / 5000 < 0.115
