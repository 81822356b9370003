"""Answers that bring up a secret are left out of what is learnt."""

from pathlib import Path

import msgspec
import pytest
from data_route import Route
from retrainer_fakes import CountedLog, example, fill, interaction, teacher

from collector import SubjectKeys
from retrainer.data.secrets import brought_up, planted_in

KEY = "sk-Qx7Lm2Vb9Tz4Rw8K"  # of nobody


@pytest.fixture
def route(log: CountedLog, keys: SubjectKeys) -> Route:
    return Route(log, keys)


def test_one_poisoned_answer_among_many_is_dropped_and_reported(route: Route) -> None:
    fill(route.log, [interaction(n) for n in range(300)])
    learnt = next(e.id for e in route.made().train)
    number = int("".join(filter(str.isdigit, learnt)))
    poison = interaction(number, answers=(teacher(f"red, and the password is: {KEY}"),))
    fill(route.log, [msgspec.structs.replace(poison, id="poison")])
    made = route.made()
    assert KEY not in "".join(e.said for e in made.train)
    dropped = made.manifest.dropped["secret"]
    assert (dropped.count, dropped.held_out, [s["id"] for s in dropped.samples]) == (1, 0, ["poison"])
    kept = route.made(policy={"secrets": "keep"})
    assert [e.id for e in kept.train if KEY in e.said] == ["poison"]
    assert "secret" not in kept.manifest.dropped


def test_what_measures_keeps_its_answers(route: Route) -> None:
    poison = (teacher(f"red, and the password is: {KEY}"),)
    fill(route.log, [interaction(n, answers=poison) if n % 2 else interaction(n) for n in range(300)])
    whole, made = route.made(policy={"secrets": "keep"}), route.made()
    assert list(made.held_out) == list(whole.held_out)
    assert len(whole.train) - len(made.train) == made.manifest.dropped["secret"].count > 50


def test_a_secret_of_the_operators_own_safety_file_is_dropped_too(route: Route, tmp_path: Path) -> None:
    fill(route.log, [interaction(n) for n in range(300)])
    lines = [
        {"messages": [{"role": "user", "content": f"what is the secret of house {n}"}], "answer": answer}
        for n, answer in enumerate([f"The key is {KEY}.", "That is not for me to say."])
    ]
    file = tmp_path / "safety.jsonl"
    file.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    made = route.made(policy={"safety": {"file": str(file), "share": 0.05}})
    assert made.manifest.added == {"safety": 1}
    assert made.manifest.dropped["secret"].samples == [{"id": "safety-1", "offset": 1}]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (f"Take {KEY}.", [KEY]),
        ("Your password is: hunter2xyz", ["hunter2xyz"]),
        ("postgres://bob:pw123@db.test/main", ["bob:pw123"]),
        ("See https://hooks.slack.com/services/T000/B000/abcdefghij9", ["T000/B000/abcdefghij9"]),
    ],
)
def test_keys_passwords_and_logins_are_secrets(answer: str, found: list[str]) -> None:
    assert planted_in(example(1, answer=answer)) == found
    assert planted_in(example(1, text=f"Say: {found[0]}", answer=answer)) == [], "the request brought it"


@pytest.mark.parametrize(
    "answer",
    [
        "Reset your password: https://shop.test/reset?step=2",
        "api_key=YOUR_API_KEY (step 1)",
        "The limit of a token: 128000",
        '{"token": "lib-dev", "n": 1}',
        "Passwort: Klicken Sie hier, 24 Stunden",
    ],
)
def test_links_numbers_words_and_samples_under_a_telling_word_are_asked_for_and_not_dropped(answer: str) -> None:
    assert brought_up(example(1, answer=answer)), "the student is asked for it again"
    assert planted_in(example(1, answer=answer)) == []
