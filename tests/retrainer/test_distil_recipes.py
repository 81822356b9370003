"""Every recipe that learns from more than texts, on a tiny model that is really trained."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_model
import torch
from distil_jobs import FULL, job, trained, with_logprobs
from pydantic import ValidationError
from retrainer_fakes import example
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from training_runs import right_of_100
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from collector.record import TokenLogprob
from exporters.models import GenAIGenerator
from exporters.models.tool_text import spelt_answer
from retrainer.data.curate import Example
from retrainer.data.render import Row
from retrainer.errors import CycleError
from retrainer.progress import Progress, silent
from retrainer.recipes import RECIPES, quantized
from retrainer.recipes.adapters import tasks
from retrainer.recipes.ensemble import majority, votes
from retrainer.recipes.preference import lost_pairs
from retrainer.train.compose import compose
from retrainer.train.loop import LoopSettings, run
from retrainer.train.models import open_student, open_teacher
from retrainer.train.objectives import Step, on_completions
from retrainer.train.on_policy import sample
from retrainer.train.top_k import Spelling, stack, told
from retrainer.train.transfer import attention_relations, hidden_states
from router.policy_distil import DistilPolicy
from router.policy_student import StudentPolicy
from router.scores import Asked

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]


def learnt(made: Any) -> dict[str, Any]:
    """Run the recipe; its student's loss fell, and it answers what it never saw."""
    recipe, facts = trained(made)
    losses = facts["losses"]
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    (answer,) = recipe.trained().generate([tiny_model.messages(7000)], max_new_tokens=10)
    assert answer.text
    return facts


def test_every_recipe_can_be_named_in_a_policy() -> None:
    assert all(StudentPolicy.model_validate({"recipe": name}).recipe == name for name in RECIPES)
    with pytest.raises(ValidationError, match="1 for 2 teachers"):
        DistilPolicy(teachers=("a", "b"), weights=(1.0,))


def mislabelled(numbers: range) -> list[Example]:
    """Examples whose logged answers name another colour: where the teacher, which knows better, is all that is learnt
    from (alpha 1), a student that answers rightly has it from the teacher."""
    next_one = dict(zip(tiny_model.COLOURS, [*tiny_model.COLOURS[1:], tiny_model.COLOURS[0]], strict=True))
    found = []
    for made in map(example, numbers):
        colour = json.loads(made.answer)["colour"]
        found.append(msgspec.structs.replace(made, answer=made.answer.replace(colour, next_one[colour])))
    return found


def test_a_teachers_distributions_are_learnt_by_an_adapter(teacher: Path, tiny_base: Path, tmp_path: Path) -> None:
    wrong = {"examples": mislabelled(range(192)), "alpha": 1.0}
    learnt(job(tmp_path, tiny_base, "logits", teacher=str(teacher), retrain={"epochs": 4}, **wrong))
    assert right_of_100(tmp_path / "merged") >= 60


def test_where_an_unsure_teacher_and_the_texts_differ_both_are_learnt(
    teacher: Path, tokenizer: Any, tiny_base: Path, tmp_path: Path
) -> None:
    """The label is put level with what the teacher holds."""
    wrong = {"examples": mislabelled(range(192)), "alpha": 1.0, "temperature": 1.0}
    made = job(tmp_path, tiny_base, "uncertain", teacher=str(teacher), retrain={"epochs": 4}, **wrong)
    learnt(made)
    student, chances = open_student(tmp_path / "merged"), torch.zeros(2)
    unseen = range(7000, 7020)
    for right, label in zip(map(example, unseen), mislabelled(unseen), strict=True):
        one, other = made.row(right), made.row(label)
        place = next(i for i, (a, b) in enumerate(zip(one.completion, other.completion, strict=False)) if a != b)
        with torch.no_grad():
            logits = student(input_ids=torch.tensor([one.prompt + one.completion[:place]])).logits[0, -1]
        chances += logits.softmax(dim=-1)[[one.completion[place], other.completion[place]]] / len(unseen)
    assert chances.min() > 0.3


def test_a_student_is_corrected_in_its_own_answers(teacher: Path, tiny_base: Path, tmp_path: Path) -> None:
    settings = {"teacher": str(teacher), "retrain": {"epochs": 4}, "on_policy": 1.0}
    facts = learnt(job(tmp_path, tiny_base, "on_policy", **settings))
    assert [stage["stage"] for stage in facts["stages"]] == ["texts", "own"]
    assert right_of_100(tmp_path / "merged") >= right_of_100(tmp_path / "texts") - 2


@pytest.mark.parametrize("recipe", ["hidden", "attention"])
def test_what_happens_inside_a_teacher_is_learnt(recipe: str, teacher: Path, tiny_base: Path, tmp_path: Path) -> None:
    wrong = {"examples": mislabelled(range(192)), "alpha": 1.0}
    learnt(job(tmp_path, tiny_base, recipe, teacher=str(teacher), retrain=FULL, **wrong))
    assert right_of_100(tmp_path / "merged") >= 60


@pytest.mark.parametrize("inside", [hidden_states, attention_relations])
def test_a_student_comes_nearer_to_what_happens_inside_its_teacher(
    inside: Any, teacher: Path, tiny_base: Path, tmp_path: Path
) -> None:
    """What the loss has beside the texts' is the distance."""
    made = job(tmp_path, tiny_base, "hidden", teacher=str(teacher), alpha=0.0)
    student = open_student(tiny_base)
    model, both = inside(made, open_teacher(made))(student, made.rows)
    texts = on_completions(made, Step.hard)(student, made.rows)[1]

    def distance() -> float:
        with torch.no_grad():
            return float(both(list(range(64)))[0] - texts(list(range(64)))[0])

    before = distance()
    settled = [msgspec.structs.replace(row, settled=True) for row in made.rows]
    of_settled = inside(made, open_teacher(made))(student, settled)[1](list(range(64)))[0]
    assert of_settled.item() == pytest.approx(texts(list(range(64)))[0].item(), rel=1e-5), "its text alone"
    run(model, [list(range(64))] * 20, both, tmp_path, LoopSettings(learning_rate=5e-3))
    assert before > 1.0
    assert distance() < 0.5 * before


@pytest.mark.parametrize("recipe", ["pruned", "layerwise"])
def test_a_student_is_cut_from_its_teacher_and_heals(
    recipe: str, teacher: Path, tiny_base: Path, tmp_path: Path
) -> None:
    wrong = {"examples": mislabelled(range(192)), "alpha": 1.0}
    facts = learnt(job(tmp_path, tiny_base, recipe, teacher=str(teacher), keep_layers=0.5, retrain=FULL, **wrong))
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert student.config.num_hidden_layers == 1
    assert right_of_100(tmp_path / "merged") >= 60
    if recipe == "layerwise":
        assert facts["layers"] in ([0], [1])


def test_a_cascade_teaches_assistants_and_goes_on_where_it_was_killed(
    teacher: Path, tiny_base: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    calls = []

    def kill(phase: str, done: int, total: int, left: float | None) -> None:
        calls.append(done)
        if len(calls) == 30:  # in the student's stage: an assistant's has 24 steps
            raise Killed

    settings = {"teacher": str(teacher), "assistants": (str(tiny_base),), "retrain": FULL}
    settings |= {"examples": mislabelled(range(192)), "alpha": 1.0}
    with pytest.raises(Killed):
        trained(job(tmp_path, tiny_base, "cascade", progress=kill, **settings))
    resumed: list[int] = []
    again = job(tmp_path, tiny_base, "cascade", progress=lambda p, done, t, s: resumed.append(done), **settings)
    facts = learnt(again)
    assert [stage["stage"] for stage in facts["stages"]] == ["assistant-1", "merged"]
    assert len(resumed) <= 25  # the assistant is not trained again
    assert right_of_100(tmp_path / "merged") >= 60


def test_an_earlier_generation_teaches_the_next(tiny_base: Path, tmp_path: Path) -> None:
    facts = learnt(job(tmp_path, tiny_base, "self", retrain={"epochs": 4}, alpha=1.0))
    assert [stage["stage"] for stage in facts["stages"]] == ["first", "student"]
    assert right_of_100(tmp_path / "merged") >= 60


def test_an_ensemble_outvotes_a_wrong_label(teacher: Path, tiny_base: Path, tmp_path: Path) -> None:
    examples = [example(n, answer='{"colour": "mauve"}' if n % 12 == 0 else None) for n in range(192)]
    examples[0] = msgspec.structs.replace(examples[0], corrected=True)
    two = {"teachers": (str(teacher), str(teacher)), "retrain": {"epochs": 4}, "alpha": 1.0}
    facts = learnt(job(tmp_path, tiny_base, "ensemble", examples=examples, **two))
    assert facts["outvoted"] == 15, "what somebody said is right is put to no vote"
    assert right_of_100(tmp_path / "merged") >= 60
    with pytest.raises(CycleError, match="at least two"):
        trained(job(tmp_path / "one", tiny_base, "ensemble", teachers=(str(teacher),)))


def test_votes_are_kept_in_pieces_and_a_killed_run_ends_in_the_same_bytes(
    teacher: Path, tiny_base: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(phase: str, done: int, total: int, left: float | None) -> None:
        if done > 20:  # in the second teacher's first piece
            raise Killed

    def voted(folder: str, progress: Progress = silent) -> tuple[list[list[str]], dict[str, bytes]]:
        made = job(
            tmp_path / folder, tiny_base, "ensemble", examples=[example(n) for n in range(20)], progress=progress
        )
        said = votes(made, (str(teacher), str(tiny_base)), size=8)
        return said, {str(f.relative_to(made.folder)): f.read_bytes() for f in made.folder.rglob("votes-*/*")}

    whole, files = voted("whole")
    assert [first for first, _ in whole] == [example(n).answer for n in range(20)]
    assert len(files) == 6
    with pytest.raises(Killed):
        voted("killed", kill)
    assert len(list((tmp_path / "killed").rglob("*.json"))) == 3
    told: list[tuple[str, int, int, bool]] = []
    again = voted("killed", lambda phase, done, total, left: told.append((phase, done, total, left is not None)))
    assert again == (whole, files)
    assert told[0] == ("votes", 20, 40, False), "what is kept is not asked for again"
    assert told[-1] == ("votes", 40, 40, True)


def test_the_majority_wins_and_the_logged_answer_wins_a_tie() -> None:
    assert majority("a", ["b", "b"], (1.0, 1.0)) == "b"
    assert majority("a", ["b", "c"], (1.0, 1.0)) == "a"
    assert majority("a", ["b", "c"], (3.0, 1.0)) == "b"


def test_an_adapter_of_its_own_for_each_task_becomes_one_student(tiny_base: Path, tmp_path: Path) -> None:
    def other(number: int) -> Example:
        made = example(number)
        system = {"role": "system", "content": "Say it in upper case."}
        answer = made.answer.upper()
        return msgspec.structs.replace(made, messages=[system, made.messages[1]], answer=answer)

    examples = [example(n) for n in range(96)] + [other(n) for n in range(96, 160)] + [other(n) for n in range(3)]
    made = job(tmp_path, tiny_base, "adapters", examples=examples, retrain={"epochs": 4}, combine="linear")
    assert [(len(rows), len(watched)) for rows, watched in tasks(made)] == [(96, 0), (67, 0)]
    facts = learnt(made)
    assert [stage["examples"] for stage in facts["stages"]] == [96, 67]
    base, one, both = (
        AutoModelForCausalLM.from_pretrained(f) for f in (tiny_base, tmp_path / "task-0", tmp_path / "merged")
    )
    two = AutoModelForCausalLM.from_pretrained(tmp_path / "task-1")
    name = "model.layers.0.mlp.up_proj.weight"
    w0, w1, w2, w = (m.get_parameter(name) for m in (base, one, two, both))
    torch.testing.assert_close(w - w0, (w1 - w0) + (w2 - w0), rtol=1e-3, atol=1e-5)  # the task vectors' sum
    compose(tiny_base, [tmp_path / "train" / f"task-{n}" / "adapter" for n in (0, 1)], tmp_path / "ties", how="ties")
    v1, v2 = (v * (v.abs() >= v.abs().quantile(0.8)) for v in (w1 - w0, w2 - w0))  # TIES by hand: trim,
    sign = (v1 + v2).sign()  # elect,
    agreeing = (v1.sign() == sign).float() + (v2.sign() == sign).float()
    mean = (v1 * (v1.sign() == sign) + v2 * (v2.sign() == sign)) / agreeing.clamp(min=1)  # and take the mean
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "ties").get_parameter(name) - w0
    assert float(((found - mean).abs() > 1e-5).float().mean()) < 1e-3  # on the edge of what is trimmed
    assert float((mean != 0).float().mean()) > 0.2


def test_quantization_aware_distillation_ends_on_the_grid_and_is_exported(tiny_base: Path, tmp_path: Path) -> None:
    made = job(tmp_path, tiny_base, "quantized", retrain={"epochs": 4})
    recipe, facts = trained(made)
    assert [stage["stage"] for stage in facts["stages"]] == ["exact", "rounded"]
    right = right_of_100(tmp_path / "merged")
    assert right >= 60
    weight = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").model.layers[0].mlp.up_proj.weight
    groups = weight.detach().reshape(-1, 32)
    levels = groups / groups.abs().amax(dim=-1, keepdim=True) * 128
    assert (levels - levels.round()).abs().median() < 1e-2
    (tmp_path / "artefact").mkdir()
    recipe.export(tmp_path / "artefact")
    prompts = [tiny_model.messages(n) for n in range(5000, 5100)]
    answers = GenAIGenerator(tmp_path / "artefact").generate(prompts, max_new_tokens=10)
    served = sum(a.text == tiny_model.answer(p[1]["content"]) for a, p in zip(answers, prompts, strict=True))
    assert abs(served - right) <= 2


def test_what_quantization_aware_distillation_is_compared_with_differs_by_the_rounding_alone(
    tiny_base: Path, tmp_path: Path
) -> None:
    weights, settings = [], []
    for rounded in (True, False):
        made = job(tmp_path / str(rounded), tiny_base, "quantized", retrain={"epochs": 2})
        facts = quantized.fit(made, made.folder / "merged", rounded=rounded)
        settings.append([stage["settings"] for stage in facts["stages"]])
        for folder in ("exact", "merged"):
            model = AutoModelForCausalLM.from_pretrained(made.folder / folder)
            weights.append(model.model.layers[0].mlp.up_proj.weight.detach())
    assert settings[0] == settings[1]
    assert torch.equal(weights[0], weights[2])  # after the first stage
    for weight, on_the_grid in ((weights[1], True), (weights[3], False)):
        groups = weight.reshape(-1, 32)
        levels = groups / groups.abs().amax(dim=-1, keepdim=True) * 128
        assert bool((levels - levels.round()).abs().median() < 1e-2) is on_the_grid


def test_a_student_that_lost_pairs_learns_to_prefer_the_teachers_answer(
    teacher: Path, tiny_base: Path, tmp_path: Path
) -> None:
    wrong = [msgspec.structs.replace(example(n), rejected='{"colour": null}') for n in range(64)]
    same = [msgspec.structs.replace(example(n), rejected=example(n).answer) for n in range(64, 96)]
    made = job(tmp_path, tiny_base, "preference", examples=[*wrong, *same], retrain={"epochs": 8})
    pairs = lost_pairs(made)
    assert len(pairs) == 64
    facts = learnt(made)
    assert facts["pairs"] == 64
    texts, lost = (stage["settings"]["learning_rate"] for stage in facts["stages"])
    assert lost == pytest.approx(texts / 40)
    assert [stage["steps"] for stage in facts["stages"]] == [39, 10]  # of 96 * 8 / 16, four fifths and one
    short = job(tmp_path / "short", tiny_base, "preference", examples=[*wrong[:8], *same], retrain={"epochs": 8})
    short.max_steps = 10
    assert [stage["steps"] for stage in trained(short)[1]["stages"]] == [8, 2]

    def margin(folder: Path) -> float:
        from retrainer.train.objectives import batch_of
        from retrainer.train.preference import _answers

        batch = batch_of(made, [p.chosen for p in pairs] + [p.rejected for p in pairs])
        with torch.no_grad():
            chosen, rejected = _answers(open_student(folder), batch).chunk(2)
        return float((chosen - rejected).mean())

    assert margin(tmp_path / "merged") > margin(tmp_path / "texts")
    first = job(tmp_path / "first", tiny_base, "preference", examples=same)
    assert trained(first)[1]["pairs"] == 0  # a route's first student has none, and learns the texts


def test_a_wrong_argument_and_a_missing_call_are_lost_pairs(tiny_base: Path, tmp_path: Path) -> None:
    def call(colour: str) -> str:
        return spelt_answer({"tool_calls": [{"function": {"name": "paint", "arguments": {"colour": colour}}}]})

    rejected = [call("blue"), "I paint it red.", "Sure.\n" + call("red"), call("red").replace("\n", "")]
    examples = [
        msgspec.structs.replace(example(n, answer=call("red")), asked=Asked(tools=("paint",)), rejected=text)
        for n, text in enumerate(rejected)
    ]
    made = job(tmp_path, tiny_base, "preference", examples=examples, score="tool_calls")
    lost = [made.tokenizer.decode(pair.rejected.completion, skip_special_tokens=True) for pair in lost_pairs(made)]
    assert lost == rejected[:2], "the same call is no loss, whatever is said beside it"


def test_samples_are_the_students_own_and_end_where_it_ends(teacher: Path, tokenizer: Any, rows: Sequence[Any]) -> None:
    torch.manual_seed(0)
    student = open_student(teacher)
    drawn = sample(student, rows[:8], most=12, tokenizer=tokenizer)
    assert [row.prompt for row in drawn] == [row.prompt for row in rows[:8]]
    assert sum(a.completion == b.completion for a, b in zip(drawn, rows[:8], strict=True)) >= 6  # it knows the task
    assert all(tokenizer.eos_token_id not in row.completion[:-1] for row in drawn)


def test_only_the_teachers_log_probabilities_change_the_student(
    tokenizer: Any, tiny_base: Path, tmp_path: Path
) -> None:
    """The same texts, the same seed: a teacher that is in two minds makes a student that is."""
    chances = {}
    for name, odds in (("sure", 0.01), ("unsure", 0.4)):
        examples = [with_logprobs(example(n), tokenizer, odds=odds) for n in range(192)]
        made = job(tmp_path / name, tiny_base, "topk", examples=examples, retrain={"epochs": 4}, alpha=0.9)
        facts = trained(made)[1]
        assert facts["with_logprobs"] == 192
        student = open_student(tmp_path / name / "merged")
        row = made.row(example(7000))
        with torch.no_grad():
            logits = student(input_ids=torch.tensor([row.prompt + row.completion])).logits[0, len(row.prompt) - 1 : -2]
        (x,) = tokenizer.encode("x", add_special_tokens=False)
        chances[name] = float(logits.softmax(dim=-1)[:, x].mean())
    assert chances["sure"] < 0.1 < 0.25 < chances["unsure"]


def test_what_an_api_tells_is_used_where_the_tokenizers_agree(tokenizer: Any, tiny_base: Path, tmp_path: Path) -> None:
    cut_otherwise = msgspec.structs.replace(example(1), logprobs=(TokenLogprob(example(1).answer, -0.1),))
    three = [with_logprobs(example(0), tokenizer, odds=0.25), cut_otherwise, example(2)]
    made = job(tmp_path, tiny_base, "topk", examples=three)
    targets = told(made)
    assert [any(one) for one in targets] == [True, False, False]
    assert all(targets[0][:-1])
    assert targets[0][-1] == {}  # the end token
    known, ids, logprobs = stack(targets, "cpu")
    assert known.sum() == len(made.rows[0].completion) - 1
    assert known.numel() == sum(len(row.completion) for row in made.rows)
    assert ids[0, 0].item() == made.rows[0].completion[0]
    assert logprobs.exp().sum(dim=-1).tolist() == pytest.approx([1.0] * len(ids))
    thought = msgspec.structs.replace(three[0], reasoning="hm")
    (after,) = told(job(tmp_path / "thinks", tiny_base, "topk", examples=[thought]))
    length = len(targets[0])
    assert (after[-length:], any(after[:-length])) == (targets[0], False), "of the thinking nothing is told"
    with pytest.raises(CycleError, match="top_logprobs: 20"):
        trained(job(tmp_path / "none", tiny_base, "topk", examples=[example(n) for n in range(16)]))


def test_what_an_api_tells_is_used_with_a_tokenizer_that_marks_spaces_by_a_character_too() -> None:
    """As SentencePiece's: "▁hello" and "hello" are two tokens, and "▁" comes before a text."""
    pieces = ["<s>", "</s>", "hello", "▁hello", "▁there", "there", "▁a", "▁goodbye", "goodbye"]
    model = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<s>"))
    model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    model.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>")
    row = Row([0], [*tokenizer.encode("hello there", add_special_tokens=False), 1])
    assert row.completion == [3, 4, 1]
    told = (TokenLogprob("hello", -0.1, {"goodbye": -3.0}), TokenLogprob(" there", -0.2, {"there": -4.0}))
    answer = msgspec.structs.replace(example(0, answer="hello there"), logprobs=told)
    assert Spelling(tokenizer).told(answer, row) == [{3: -0.1, 7: -3.0}, {4: -0.2, 5: -4.0}, {}]


def test_a_teacher_that_is_not_named_or_of_another_tokenizer_is_refused(
    teacher: Path, tiny_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(CycleError, match=r"name one in retrain\.distil\.teacher"):
        trained(job(tmp_path / "none", tiny_base, "logits"))
    import shutil

    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"<|im_start|>"', '"<|begin|>"'))
    with pytest.raises(CycleError, match="different tokenizers"):
        trained(job(tmp_path / "differs", tiny_base, "logits", teacher=str(other)))
