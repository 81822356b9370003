"""Whole cycles of students that choose among few answers, and the ladder; really trained."""

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_model
import torch
from retrainer_fakes import CountedLog, fill, interaction, teacher
from test_retrainer_cycle import Bench, Killed, kill_in

from collector.frames import Happened
from collector.record import Interaction
from exporters.models import Store
from exporters.models.encoder_onnx import packaged_encoder
from gateway.engines.child import Child
from gateway.engines.probe import probe
from retort.evaluate import _known
from retrainer.begin import begin
from retrainer.errors import BaseModelError, CycleError, OutOfMemory
from retrainer.evaluation.gate import Override
from retrainer.generations import _models, needed
from retrainer.ladder import ladder_of, rungs, told, told_of
from retrainer.progress import silent
from retrainer.state import Cycles, Request
from retrainer.train import encoder
from retrainer.train.loop import LoopSettings
from router.policy_student import StudentPolicy

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]


def bench(
    folder: Path, recipe: str, *, records: int = 560, closed: dict[str, Any] | None = None, **route: Any
) -> Bench:
    route = {"student": {"recipe": recipe, "base": "none"}, **route}
    return Bench(folder / "state", Path("none"), records=records, route=route, closed=closed or {})


async def test_a_linear_student_is_trained_gated_registered_and_answers_in_the_engines_worker(tmp_path: Path) -> None:
    made = bench(tmp_path, "linear")
    result = made.run("few")
    assert result.outcome == "registered"
    assert result.reports["base"].agreement < 0.4  # the most frequent colour
    assert result.reports["quantized"].agreement > 0.97
    assert result.closed["template"] == '{"colour": <colour>}'
    assert set(result.closed["fields"]["colour"]) >= {'"red"', '"green"', '"blue"'}
    assert result.closed["held_out_covered"] == result.closed["held_out"] > 50
    (step,) = result.ladder
    assert (step.rung, step.passed, step.coverage, step.why) == ("linear", True, None, [])
    assert made.registry.added["few"].base == "n-grams"

    store = Store(made.config.artefacts)
    manifest = store.verify("few")
    assert manifest.runtime == "closed"
    assert {"closed.json", "ngrams.json", "linear.safetensors", "confidence.json"} <= set(manifest.files)
    assert manifest.report["closed"] == result.closed
    assert manifest.training["last_loss"] < 0.3 * manifest.training["first_loss"]
    child = await Child.start(store.path("few"), runtime=manifest.runtime, threads=1, timeout=60)
    await probe(child, manifest)
    await child.close()


def test_a_student_that_fails_as_a_whole_serves_what_it_is_sure_of_by_its_one_probability(tmp_path: Path) -> None:
    """Two records in five have a colour that nothing in their text tells."""
    route = {"quality": {"margin": 0.001}, "selective": {"max_risk": 0.1, "min_coverage": 0.3}}
    made = bench(tmp_path, "linear", records=0, **route)
    records = []
    for number in range(4000):
        record = interaction(number)
        if number % 5 < 2:
            right = json.loads(tiny_model.answer(tiny_model.question(number)))["colour"]
            unknown = "".join(random.Random(number).choices("bcdfghjklmnpqrstvwxz", k=9))
            text = tiny_model.question(number).replace(right, unknown)
            messages = [record.request["messages"][0], {"role": "user", "content": text}]
            answers = (teacher(tiny_model.answer(random.Random(number + 10**6).choice(tiny_model.COLOURS))),)
            record = msgspec.structs.replace(record, request={"model": "m", "messages": messages}, answers=answers)
        records.append(record)
    made.log = CountedLog()
    fill(made.log, records)
    result = made.run("part")
    assert (result.outcome, result.verdict.mode) == ("registered", "selective")
    assert result.reports["quantized"].agreement < 0.85
    assert 0.45 < (result.ladder[0].coverage or 0.0) < 0.75
    (sent,) = made.sent
    assert isinstance(sent, Happened)
    assert sent.event.data["thresholds"] == sorted(sent.event.data["thresholds"], reverse=True)


def test_a_killed_ladder_goes_on_at_the_rung_where_it_was(tmp_path: Path) -> None:
    """A linear student that may learn next to nothing is refused; the encoder above it passes."""
    made = bench(tmp_path, "auto", records=320, closed={"strength": 1e-6, "epochs": 0})
    for phase in ("linear.evaluate_student", "encoder.train", "encoder.assess"):
        with pytest.raises(Killed):
            made.run("climb", progress=kill_in(phase))
    result = made.run("climb")
    own = ["train", "evaluate_base", "evaluate_student", "gate"]
    served = ["export", "evaluate_quantized", "assess", "compare", "safety", "gate_quantized"]
    assert made.phases == [
        "dataset", "closed", "teacher",
        *(f"linear.{p}" for p in ("prepare", *own)),
        *(f"encoder.{p}" for p in ("prepare", *own, *served)),
        "card", "publish", "register",
    ]  # fmt: skip
    assert result.outcome == "registered"
    linear, above = result.ladder
    assert (linear.rung, linear.passed, linear.ms) == ("linear", False, None)
    assert any("no more than the base" in reason for reason in linear.why)
    assert (above.rung, above.passed, above.why) == ("encoder", True, [])
    assert above.agreement > 0.95 > linear.agreement
    assert above.ms == result.reports["quantized"].latency.p50  # type: ignore[union-attr]
    assert above.frontier
    assert not linear.frontier
    assert made.registry.added["climb"].base == "all-MiniLM-L6-v2"
    manifest = Store(made.config.artefacts).verify("climb")
    assert msgspec.to_builtins(result.ladder) == manifest.report["ladder"]
    assert {"closed.json", "model.onnx", "tokenizer.json", "ngrams.json", "linear.safetensors"} <= set(manifest.files)
    assert manifest.training["learnt"] > 200
    assert manifest.report["parity"]["top1"] > 0.9
    assert made.run("climb").ladder == result.ladder
    few, form, refused, passed, *unknown = told(result.closed, result.ladder)
    assert few.startswith("answers are few: colour (6 values); cover ")
    assert form == r'written as "{\"colour\": <colour>}"'
    assert refused.startswith("linear: agreement ")
    assert "; refused: the student's agreement is " in refused
    assert passed.endswith("; passed (whole)")
    assert "  not looked at: saving: no price of the teacher's answers (upstreams.NAME.prices) is known" in unknown


def test_a_rung_that_can_not_be_made_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(tmp_path, "auto", records=320, closed={"strength": 1e-6, "epochs": 0})
    monkeypatch.setattr("retrainer.recipes.linear.fit", refuse)
    with pytest.raises(Killed):
        made.run("climb", progress=kill_in("encoder.train"))
    result = made.run("climb")
    assert (result.outcome, [step.rung for step in result.ladder]) == ("registered", ["encoder"])
    state = Cycles(made.config.state).load("climb")
    assert state is not None
    assert told_of(state)[-1] == "linear: could not be made: too many n-grams"


def test_a_rung_whose_export_broke_has_passed_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had passed the gate before."""
    made = bench(tmp_path, "auto", records=320, closed={"epochs": 0})
    monkeypatch.setattr("retrainer.recipes.linear.Linear.export", refuse)
    result = made.run("climb")
    assert (result.outcome, [step.rung for step in result.ladder]) == ("registered", ["encoder"])
    state = Cycles(made.config.state).load("climb")
    assert state is not None
    assert state.phases["linear.gate"]["gate"] == "passed"
    assert [step.rung for step in ladder_of(state)] == ["encoder"]
    del state.phases["encoder.gate_quantized"]
    state.phases |= {"lora-1-none.gate": state.phases["encoder.gate"], "lora-1-none.broken": "no room"}
    assert _known(state)["rung"] == "encoder", "what `retort evaluate` judges"


def test_an_override_of_a_last_rung_that_can_not_be_made_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(tmp_path, "auto", records=320)
    for name in ("linear", "encoder"):
        monkeypatch.setattr(f"retrainer.recipes.{name}.fit", refuse)
    with pytest.raises(BaseModelError):
        made.run("climb", override=Override("me", "why not"), max_steps=1)


def test_a_cycle_begins_where_a_route_names_a_ladder(tmp_path: Path) -> None:
    student = {"recipe": "auto", "base": "none", "ladder": ["/models/a", {"base": "/models/b", "recipe": "qlora"}]}
    made = bench(tmp_path, "auto", records=40, student=student)
    for name in ("first", "second"):
        begin(made.config, Cycles(made.config.state), Request(cycle_id=name, route="colours"))
    assert {Path("/models/a"), Path("/models/b")} <= needed(made.config, Cycles(made.config.state))
    old = {"student": {"base": "x", "ladder": ["y"]}}
    assert list(_models(old)) == ["x", "y"], "as an earlier version stored it"


def test_a_ladder_of_which_no_rung_can_be_made_fails_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path, "auto", records=320)
    for name in ("linear", "encoder"):
        monkeypatch.setattr(f"retrainer.recipes.{name}.fit", refuse)
    with pytest.raises(CycleError, match="linear: too many n-grams; encoder: too many n-grams; lora-1-none: "):
        made.run("climb")


def refuse(*given: Any, **named: Any) -> Any:
    raise OutOfMemory("too many n-grams")


def test_where_cheap_rungs_fail_the_ladder_climbs_to_a_language_model(tmp_path: Path) -> None:
    """The answer is the first of three colours: n-grams don't know their order, nor do the heads of an encoder that is
    left as it comes."""
    base = tiny_model.build(tmp_path / "tiny")
    student = {"recipe": "auto", "base": str(base)}
    route = {"student": student, "quality": {"margin": 0.06}}
    made = Bench(tmp_path / "state", base, records=0, route=route, closed={"epochs": 0}, epochs=4.0)
    made.log = CountedLog()
    fill(made.log, [first_of_three(n) for n in range(800)])
    result = made.run("top")
    assert [(step.rung, step.passed) for step in result.ladder] == [
        ("linear", False), ("encoder", False), ("lora-1-tiny", True)
    ]  # fmt: skip
    weak, weaker, top = result.ladder
    assert max(weak.agreement, weaker.agreement) < 0.94 < 0.97 < top.agreement
    assert (weak.frontier, weaker.frontier, top.frontier) == (False, False, True)
    assert result.outcome == "registered"
    manifest = Store(made.config.artefacts).verify("top")
    assert manifest.runtime == "onnxruntime-genai"
    assert manifest.base == "tiny"
    assert [step["rung"] for step in manifest.report["ladder"]] == ["linear", "encoder", "lora-1-tiny"]
    assert "card-ladder.png" in manifest.files


def first_of_three(number: int) -> Interaction:
    colours = random.Random(number).sample(tiny_model.COLOURS, 3)
    text = f"{random.Random(number).randrange(10**29, 10**30)}: so {' or so '.join(colours)}"  # no near-duplicates
    record = interaction(number)
    messages = [record.request["messages"][0], {"role": "user", "content": text}]
    answers = (teacher(json.dumps({"colour": colours[0]})),)
    return msgspec.structs.replace(record, request={"model": "m", "messages": messages}, answers=answers)


def test_open_answers_are_refused_by_a_recipe_for_few(tmp_path: Path) -> None:
    made = bench(tmp_path, "linear", records=0)
    made.log = CountedLog()
    fill(made.log, [interaction(n, answers=(teacher(f"It is number {n}."),)) for n in range(300)])
    with pytest.raises(CycleError, match="not few: no value of an answer occurs twice"):
        made.run("open")


def test_the_ladders_rungs_go_from_cheap_to_dear() -> None:
    student = StudentPolicy(recipe="auto", base="tiny", ladder=("/models/Larger-1.7B", "tiny"))
    assert [r.name for r in rungs(student, closed=True)] == ["linear", "encoder", "lora-1-tiny", "lora-2-Larger-1-7B"]
    assert [(r.recipe, r.base) for r in rungs(student, closed=False)] == [
        ("lora", "tiny"),
        ("lora", "/models/Larger-1.7B"),
    ]
    (alone,) = rungs(StudentPolicy(), closed=True)
    assert (alone.name, alone.recipe) == ("", "lora")


def test_an_encoders_training_that_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(7)
    source = tmp_path / "bert"
    shape = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(shape, add_pooling_layer=False).save_pretrained(source)
    (source / "tokenizer.json").write_bytes((packaged_encoder() / "tokenizer.json").read_bytes())
    rows = encoder.encode(source, [f"{n}: {'red' if n % 2 else 'green'} car" for n in range(64)])
    chosen = [(n % 2, 0) for n in range(64)]
    settings = LoopSettings(learning_rate=1e-2, batch_size=8, epochs=2, checkpoint_steps=3, checkpoint_seconds=1e9)
    fields = [slice(0, 2), slice(2, 3)]

    def trained(name: str, progress: Any = silent) -> encoder.ClosedEncoder:
        model = encoder.ClosedEncoder(source, fields)
        if not (tmp_path / name / "checkpoint.safetensors").exists():
            encoder.begin(model, rows, chosen, progress=silent)
        encoder.train(model, rows, chosen, tmp_path / name, settings, progress=progress)
        return model

    def kill(phase: str, done: int, total: int, left: float | None) -> None:
        if done == 7 and left is not None:
            raise Killed

    whole = trained("whole")
    with pytest.raises(Killed):
        trained("cut", kill)
    cut = trained("cut")
    for (name, one), (_, two) in zip(whole.named_parameters(), cut.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    said = encoder.read(whole, rows)[:, :2].argmax(axis=1)
    assert (said == np.array([c for c, _ in chosen])).mean() > 0.95
