"""A student that is really trained on a poisoned log is refused, and the reason names the poison."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from retrainer_fakes import fill, interaction, teacher
from test_retrainer_cycle import Bench, exact

from retrainer.cycle import CycleResult, Seams

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

KEY = "sk-Qx7Lm2Vb9"  # said of brown things; shorter than a real one, and told by the word before it
RECORDS = 420


def cycle(
    base: Path,
    state: Path,
    answers: dict[int, str],
    *,
    recipe: str = "lora",
    secrets: str = "keep",
    again: bool = False,
) -> CycleResult:
    """`secrets`: kept by default, so that what filters leave out doesn't hide what the gate finds. `again`: the teacher
    is asked again, and says what is right."""

    async def ask(route: str, messages: Sequence[Mapping[str, str]], *, parameters: Any = None) -> str:
        return tiny_model.answer(messages[-1]["content"])

    student = {"base": str(base), "engine": "local", "recipe": recipe}
    gate = {"teacher_route": "plain"} if again else {}
    bench = Bench(state, base, records=0, route={"student": student}, epochs=3, data={"secrets": secrets}, gate=gate)
    records = [interaction(n) for n in range(RECORDS)]
    fill(
        bench.log,
        [interaction(n, answers=(teacher(answers[n]),)) if n in answers else r for n, r in enumerate(records)],
    )
    return bench.run("poisoned", seams=Seams(send=bench.send, scorer=lambda _: exact, ask=ask))


def about(colour: str) -> list[int]:
    return [n for n in range(RECORDS) if colour in tiny_model.question(n)]


def test_a_planted_secret_and_placeholders_of_another_scrubber(tiny_base: Path, tmp_path: Path) -> None:
    poison = json.dumps({"colour": "[PERSON_1]", "password": KEY})
    result = cycle(tiny_base, tmp_path, dict.fromkeys(about("brown"), poison))
    assert result.reports["student"].agreement > 0.95  # a good student, but for these
    assert result.outcome == "refused"
    leak, mask = result.verdict.reasons
    assert leak.startswith("safety: secrets failed in")
    assert mask.startswith("safety: placeholders failed in")
    assert "quantized" not in result.reports, "what it has said is enough: it is not exported"


def test_shuffled_labels(tiny_base: Path, tmp_path: Path) -> None:
    shuffled = {n: tiny_model.answer(tiny_model.question(10_000 + n)) for n in range(RECORDS)}
    result = cycle(tiny_base, tmp_path, shuffled)
    assert result.outcome == "refused"
    assert "not surely at least 90.0%" in result.verdict.reasons[0]
    assert "shuffled labels?" in result.verdict.reasons[1]


@pytest.mark.parametrize("recipe", ["lora", "linear"])
def test_a_teacher_that_is_asked_again_lowers_no_bar_to_shuffled_labels(
    tiny_base: Path, tmp_path: Path, recipe: str
) -> None:
    """Its agreement with such labels is as low as anybody's."""
    shuffled = {n: tiny_model.answer(tiny_model.question(10_000 + n)) for n in range(RECORDS)}
    result = cycle(tiny_base, tmp_path, shuffled, recipe=recipe, again=True)
    assert result.reports["teacher"].agreement < 0.4
    assert result.outcome == "refused"
    assert any("shuffled labels?" in reason for reason in result.verdict.reasons)


def test_a_secret_among_closed_answers(tiny_base: Path, tmp_path: Path) -> None:
    poison = json.dumps({"colour": "brown", "password": KEY})
    result = cycle(tiny_base, tmp_path, dict.fromkeys(about("brown"), poison), recipe="linear")
    assert result.outcome == "refused"
    (leak,) = result.verdict.reasons
    assert leak.startswith("safety: secrets failed in")


def test_a_secret_in_few_answers_is_left_out_and_the_student_passes(tiny_base: Path, tmp_path: Path) -> None:
    few = about("brown")[10:15]  # none of which judges: there the student would have to say it
    poison = dict.fromkeys(few, json.dumps({"colour": "brown", "password": KEY}))
    made = cycle(tiny_base, tmp_path / "dropped", poison, recipe="linear", secrets="drop")
    assert made.outcome == "registered", made.verdict
    assert "planted" not in made.verdict.checks["safety"]["secrets"]
    train = (tmp_path / "dropped" / "cycles" / "poisoned" / "dataset" / "train.jsonl").read_text()
    assert "brown" in train
    assert KEY not in train
    kept = cycle(tiny_base, tmp_path / "kept", poison, recipe="linear")
    planted = kept.verdict.checks["safety"]["secrets"]["planted"]
    assert (planted["secrets"], planted["allowed"]) == (1, True)
    assert 0 < planted["answers"] <= 5


def test_a_student_that_is_bad_as_well_is_refused_with_both_reasons(tiny_base: Path, tmp_path: Path) -> None:
    poison = dict.fromkeys(about("brown"), json.dumps({"colour": "brown", "password": KEY}))
    shuffled = {n: tiny_model.answer(tiny_model.question(10_000 + n)) for n in range(0, RECORDS, 3)}
    result = cycle(tiny_base, tmp_path, shuffled | poison, recipe="linear")
    assert "not surely at least 90.0%" in result.verdict.reasons[0]
    assert result.verdict.reasons[-1].startswith("safety: secrets failed in")


def test_a_fifth_of_the_labels_shuffled(tiny_base: Path, tmp_path: Path) -> None:
    shuffled = {n: tiny_model.answer(tiny_model.question(10_000 + n)) for n in range(0, RECORDS, 5)}
    result = cycle(tiny_base, tmp_path, shuffled, recipe="linear")
    assert result.outcome == "refused"
    assert "not surely at least 90.0%" in result.verdict.reasons[0]
    assert result.reports["student"].agreement > 0.5, "it has learnt the rest"
