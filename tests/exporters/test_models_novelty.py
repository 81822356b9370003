"""What is unlike the training set: Debian's packages against questions about cooking."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from exporters.models import CorruptArtefact
from exporters.models.novelty import MOST_EXAMPLES, SYSTEM_DIMS, TEXT_DIMS, Neighbours, evenly

SYSTEM = "Which community does this Debian package belong to?"
KINDS = ("library", "bindings", "development files", "command line tool", "documentation", "test suite")
SUBJECTS = ("XML parser", "HTTP client", "regular expressions", "date arithmetic", "SQLite databases", "PNG images")
PREFIXES = ("python3", "libghc", "ruby", "r-cran", "golang", "node")
COOKING = (
    "How long do I boil an egg so that the yolk stays soft?",
    "What can I cook with leftover rice and two carrots?",
    "My sourdough does not rise, is my kitchen too cold?",
    "Which wine goes with roast lamb and rosemary potatoes?",
    "How do I keep a cheesecake from cracking in the oven?",
    "Can I freeze tomato soup with cream in it?",
)


def ask(text: str, system: str = SYSTEM) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def package(number: int) -> str:
    kind, subject, prefix = (s[number // n % 6] for s, n in ((KINDS, 1), (SUBJECTS, 6), (PREFIXES, 36)))
    return f"{prefix}-{subject.split()[0].lower()}{number % 17}: {kind} for {subject} ({number})"


@pytest.fixture(scope="module")
def packages() -> Neighbours:
    """Two packages of three."""
    return Neighbours.of([ask(package(n)) for n in range(600) if n % 3])


def test_every_cooking_question_is_more_novel_than_every_unseen_package(packages: Neighbours) -> None:
    unseen = [packages.novelty(ask(package(n))) for n in range(0, 600, 3)]
    assert max(unseen) + 0.05 < min(packages.novelty(ask(text)) for text in COOKING)


def test_what_was_seen_three_times_is_not_novel_and_what_shares_nothing_is_wholly() -> None:
    three = Neighbours.of([ask("a red car", "")] * 3)
    assert three.novelty(ask("A  RED\ncar", "")) == pytest.approx(0.0, abs=1e-3)  # case and white space don't count
    other = three.novelty(ask("zzz kkk www", ""))
    assert other == pytest.approx(1 - 0.25 / 1.25, abs=0.1)  # the same system prompt is all that they share


def test_another_system_prompt_is_more_novel(packages: Neighbours) -> None:
    text = package(0)
    assert packages.novelty(ask(text, "Name the colour.")) > packages.novelty(ask(text)) + 0.1


def test_only_the_last_user_message_counts(packages: Neighbours) -> None:
    one = ask(package(0))
    turns = [one[0], {"role": "user", "content": COOKING[0]}, {"role": "assistant", "content": "x"}, one[1]]
    assert packages.novelty(turns) == packages.novelty(one)


def test_the_three_nearest_are_averaged() -> None:
    alike, foreign = ask("a red car", ""), ask("zzz kkk www", "")
    found = [Neighbours.of([alike] * n + [foreign] * 9).novelty(alike) for n in range(1, 4)]
    far = 1 - Neighbours.of([alike] * 3 + [foreign] * 9).vectors[0] @ Neighbours.of([foreign] * 3).vectors[0]
    assert found[0] > found[1] > found[2] == pytest.approx(0.0, abs=1e-3)
    assert far > 0.5
    assert found[0] == pytest.approx(2 * found[1], rel=0.1)


def test_inputs_without_words_or_users_and_very_long_ones_have_a_novelty_too(packages: Neighbours) -> None:
    for messages in (ask(""), ask("é"), [{"role": "assistant", "content": "x"}], ask("\ud800"), ask("word " * 50_000)):
        assert 0.0 <= packages.novelty(messages) <= 2.0


def test_a_saved_index_says_the_same_and_is_what_safetensors_reads(packages: Neighbours, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    path = tmp_path / "novelty.data"
    packages.save(path)
    loaded = Neighbours.load(path)
    for text in (package(0), *COOKING):
        assert loaded.novelty(ask(text)) == pytest.approx(packages.novelty(ask(text)), abs=1e-6)
    tensors = load_file(path)
    assert tensors["vectors"].shape == (400, TEXT_DIMS + SYSTEM_DIMS)
    assert tensors["vectors"].dtype == np.int8
    assert tensors["idf"].dtype == np.float32


def test_of_a_big_training_set_examples_are_drawn_evenly_and_take_under_5_megabytes(tmp_path: Path) -> None:
    assert evenly(range(10), 4) == [0, 2, 5, 7]
    assert evenly(range(3), 4) == [0, 1, 2]
    index = Neighbours.of([ask(str(n)) for n in range(MOST_EXAMPLES + 700)])
    index.save(tmp_path / "n.safetensors")
    assert len(index) == MOST_EXAMPLES
    assert (tmp_path / "n.safetensors").stat().st_size < 5e6


def test_no_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="no training example"):
        Neighbours.of([])


def header(**tensors: object) -> bytes:
    head = json.dumps(tensors).encode()
    return struct.pack("<Q", len(head)) + head


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 20,
        header(vectors=[1]),
        header(vectors={"dtype": "O", "shape": [1], "data_offsets": [0, 1]}),
        header(vectors={"dtype": "I8", "shape": [2, 512], "data_offsets": [0, 4]}) + b"abcd",
        header(vectors={"dtype": "I8", "shape": [2, 2], "data_offsets": [0, 4]}) + b"abcd",
    ],
)
def test_a_file_that_is_no_index_is_corrupt(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "n.safetensors").write_bytes(data)
    with pytest.raises(CorruptArtefact, match="export the version again"):
        Neighbours.load(tmp_path / "n.safetensors")
