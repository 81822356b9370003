"""Whole cycles on a tiny, really trained model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_model
from retrainer_fakes import CountedLog, example, fill, interaction

from collector import Interaction, Interactions, open_subjects
from collector.errors import CollectorUnavailable
from collector.frames import Happened, Header
from collector.log import Stream
from exporters.models import Confidence, GenAIGenerator, Store, digest
from retrainer.cycle import CycleResult, Seams, run_request
from retrainer.data.dataset import load
from retrainer.data.suite import read_suite, suite_file
from retrainer.errors import CycleBusy, CycleError, NotEnoughExamples
from retrainer.evaluation.asking import Gateway
from retrainer.evaluation.gate import Override
from retrainer.phases_gate import Setting, compare
from retrainer.progress import Progress, silent
from retrainer.recipes import RECIPES, Job
from retrainer.state import Cycles, Request
from router.config import Config
from router.events import Events
from router.evidence import EventKind
from router.policy import RoutePolicy
from router.policy_student import StudentPolicy
from router.registry import Stage, Version
from router.scores import Asked

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]


ALLOWED = {"distillation_allowed": True, "reasoning_distillation_allowed": True}


def thinking(number: int) -> Interaction:
    """An exchange whose teacher thought before it answered."""
    made = interaction(number)
    answers = [msgspec.structs.replace(a, reasoning=f"So {(a.message or {})['content']}") for a in made.answers]
    return msgspec.structs.replace(made, answers=tuple(answers))


class Score(msgspec.Struct, frozen=True):
    value: float
    reason: str


def exact(
    *, answer: Mapping[str, Any] | None, reference: Mapping[str, Any] | None, finish_reason: str | None, asked: Asked
) -> Score:
    right = finish_reason == "stop" and answer == reference
    return Score(float(right), "same" if right else "different")


class Versions:
    """The part of the registry that a cycle uses."""

    def __init__(self) -> None:
        self.added: dict[str, Version] = {}

    def add_version(self, version: Version) -> None:
        self.added.setdefault(version.id, version)

    def versions(self, route: str) -> list[Version]:
        return [v for v in self.added.values() if v.route == route]


class Bench:
    """One state folder with a filled log, and what a cycle told."""

    def __init__(
        self,
        state: Path,
        base: Path,
        *,
        records: int = 560,
        route: Mapping[str, Any] | None = None,
        thinks: bool = False,
        **retrain: Any,
    ) -> None:
        settings = {"learning_rate": 5e-3, "epochs": 2, "min_new_examples": 10, **retrain}
        self.config = Config.model_validate(
            {
                "state": str(state),
                "upstreams": {"up": {"base_url": "http://127.0.0.1:1/v1", "api_key": "k", **ALLOWED}},
                "engines": {"local": {}},
                "routes": {
                    "colours": {
                        "teachers": ["up/m"],
                        "student": {"base": str(base), "engine": "local"},
                        "retrain": settings,
                        "quality": {"margin": 0.1},
                        **(route or {}),
                    },
                    "plain": {"teachers": ["up/m"], "capture": {"rate": 0}},
                },
            }
        )
        self.log = CountedLog()
        fill(self.log, [thinking(n) if thinks else interaction(n) for n in range(records)])
        self.registry = Versions()
        self.sent: list[Header] = []
        self.phases: list[str] = []
        self.outcomes: list[str] = []

    def send(self, headers: Sequence[Header]) -> None:
        self.sent += headers

    def run(
        self, cycle_id: str, *, seams: Seams | None = None, progress: Progress = silent, **asked: Any
    ) -> CycleResult:
        events = Events()
        events.subscribe(self._told)
        return run_request(
            self.config,
            Request(**{"cycle_id": cycle_id, "route": "colours", **asked}),
            registry=self.registry,  # type: ignore[arg-type]
            interactions=Interactions(self.log, open_subjects(self.config.subjects)),
            events=events,
            progress=progress,
            seams=seams or Seams(send=self.send, scorer=lambda name: exact),
        )

    def _told(self, name: str, fields: dict[str, Any]) -> None:
        if name == "retrainer.phase":
            self.phases.append(fields["phase"])
        elif name == "retrainer.cycle":
            self.outcomes.append(fields["outcome"])


class Killed(BaseException):
    """Stands for SIGKILL."""


def kill_in(phase: str, done: int = 0) -> Any:
    def progress(name: str, at: int, total: int, seconds_left: float | None) -> None:
        if name == phase and at == done:
            raise Killed

    return progress


ALL = [
    "prepare",
    "dataset",
    "closed",
    "teacher",
    "train",
    "evaluate_base",
    "evaluate_student",
    "gate",
    "export",
    "evaluate_quantized",
    "assess",
    "compare",
    "safety",
    "gate_quantized",
    "card",
    "publish",
    "register",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("cycle-base") / "tiny")


def test_a_cycle_killed_again_and_again_goes_on_where_it_was_and_registers_a_good_student(
    tiny: Path, tmp_path: Path
) -> None:
    bench = Bench(tmp_path / "state", tiny)
    name = "colours-1"
    for phase, done in (("train", 20), ("evaluate_student", 0), ("gate_quantized", 0)):
        with pytest.raises(Killed):
            bench.run(name, progress=kill_in(phase, done))

    def unavailable(headers: Sequence[Header]) -> None:
        raise CollectorUnavailable

    with pytest.raises(CollectorUnavailable):
        bench.run(name, seams=Seams(send=unavailable, scorer=lambda _: exact))
    result = bench.run(name)

    assert bench.phases == ALL  # each once, over all five runs
    assert result.outcome == "registered"
    assert result.version == name
    assert result.reports["base"].agreement < 0.2
    assert result.reports["student"].agreement > 0.95
    assert result.reports["quantized"].agreement >= result.reports["student"].agreement - 0.01
    assert bench.outcomes == ["registered"]

    version = bench.registry.added[name]
    assert (version.route, version.engine, version.artefact) == ("colours", "local", name)
    assert version.lineage["gate"] == "passed"
    (sent,) = bench.sent
    assert isinstance(sent, Happened)
    assert (sent.event.kind, sent.event.version, sent.event.id) == (EventKind.CANDIDATE, name, f"candidate:{name}")
    assert sent.event.data == {"gate": "passed"}

    _check_artefact(bench, result)
    _check_the_manifest_tells_all_that_the_student_came_of(bench, result, tmp_path / "again")
    _check_the_next_one_is_compared_with_it(bench, result, version)
    again = bench.run(name)  # nothing left to do, and nothing is told twice
    assert again.version == name
    assert bench.phases == ALL
    assert bench.outcomes == ["registered"]


def _check_the_manifest_tells_all_that_the_student_came_of(bench: Bench, result: CycleResult, folder: Path) -> None:
    told = Store(bench.config.artefacts).verify(result.cycle_id).training
    policy = RoutePolicy.model_validate({"teachers": ["up/m"], **told["policy"]})
    where = result.folder / "dataset"
    job = Job(bench.config.state, policy, folder, silent, dataset=where, max_steps=told["max_steps"])
    RECIPES[job.student.recipe](job).train()
    weights = [(of / "merged" / "model.safetensors").read_bytes() for of in (folder, result.folder)]
    assert weights[0] == weights[1]


def _check_artefact(bench: Bench, result: CycleResult) -> None:
    store = Store(bench.config.artefacts)
    manifest = store.verify(result.cycle_id)
    assert {"model.onnx", "genai_config.json", "tokenizer.json", "tokenizer_config.json"} <= set(manifest.files)
    assert {"confidence.json", "novelty.data"} <= set(manifest.files)
    assert {"card.html", "card.md", "card-learning.png", "card-clusters.png", "card-sizes.png"} <= set(manifest.files)
    assert {suite["name"]: suite["failed"] for suite in manifest.report["safety"]}["secrets"] == 0
    assert manifest.report["quantized"]["metrics"]["field:colour"]["value"] > 0.95
    assert manifest.report["quantized"]["latency"]["n"] >= 20
    assert not {"worst", "name"} & set(manifest.report["compared"]["clusters"][0])  # no text
    compared = manifest.report["compared"]
    assert set(compared["newest"]) == {"base", "student", "quantized"}
    assert compared["frozen"]["scores"]["quantized"]["n"] == manifest.dataset["counts"]["test"]
    told = manifest.report["confidence"]
    confidence = Confidence.load(store.path(result.cycle_id))
    assert confidence.calibration.method == told["method"]
    assert told["novelty"]["examples"] == manifest.training["examples"]
    assert told["thresholds"] == []  # the route serves whole
    known, foreign = (
        [{"role": "system", "content": tiny_model.SYSTEM}, {"role": "user", "content": t}]
        for t in (tiny_model.question(3), "Which wine goes with lamb?")
    )
    assert not confidence.novel(confidence.novelty(known))
    assert confidence.novel(confidence.novelty(foreign))
    assert manifest.runtime == "onnxruntime-genai"
    assert manifest.dataset["digest"].startswith("sha256:")
    assert manifest.report["quantized"]["n"] == result.reports["quantized"].n
    assert "outcomes" not in manifest.report["quantized"]
    assert manifest.gate["gate"] == "passed"
    assert manifest.golden[0]["answer"] != manifest.golden[0]["base_answer"]
    generator = GenAIGenerator(store.path(result.cycle_id), threads=1)
    for golden in manifest.golden:
        (found,) = generator.generate([golden["messages"]], max_new_tokens=golden["max_tokens"])
        assert found.text == golden["answer"]
        assert list(found.logprobs) == pytest.approx(golden["logprobs"], abs=1e-3)
    assert manifest.report["parity"]["top1"] > 0.95
    assert "against the unquantized one | KL " in (store.path(result.cycle_id) / "card.md").read_text()


def _check_the_next_one_is_compared_with_it(bench: Bench, result: CycleResult, version: Version) -> None:
    quantized = result.reports["quantized"]
    student = {"base": "none", "recipe": "linear"}  # whose answers are one token long
    policy = bench.config.routes["colours"].model_copy(update={"student": StudentPolicy.model_validate(student)})
    job = Job(bench.config.state, policy, result.folder, silent)
    known = {e.id: e for e in job.data.held_out}
    setting = Setting(
        config=bench.config,
        route="colours",
        job=job,
        gateway=Gateway(bench.config),
        judged=[known[o.id] for o in quantized.outcomes],
        frozen=read_suite(suite_file(bench.config.state, "colours")),
        most_tokens=1,
    )
    newest, frozen = {e.id for e in job.data.newest}, {e.id for e in setting.frozen}
    lost = {o.id for o in quantized.outcomes if o.id in frozen and o.value == 1.0 and o.id in newest}
    assert 0 < len(lost) < len(frozen)
    worse = [msgspec.structs.replace(o, text="no", value=0.0) if o.id in lost else o for o in quantized.outcomes]
    interactions = Interactions(bench.log, open_subjects(bench.config.subjects))
    live = msgspec.structs.replace(version, stage=Stage.LIVE)
    reports = {**result.reports, "quantized": msgspec.structs.replace(quantized, outcomes=worse)}
    found = compare(setting, reports, exact, interactions, [live])
    assert found.previous is not None
    assert found.previous.agreement == quantized.agreement
    assert found.regressions is not None
    assert (found.regressions.previous, found.regressions.lost, found.regressions.won) == (
        version.id,
        len(lost),
        0,
    )
    assert found.newest["quantized"].value < found.newest["previous"].value
    assert found.newest["base"].n == found.newest["quantized"].n == len(newest & {e.id for e in setting.judged})
    assert found.frozen is not None
    on_it = found.evidence([]).regressions
    assert on_it is not None
    assert (on_it.n, on_it.lost, on_it.fell) == (len(frozen), len(lost), pytest.approx(len(lost) / len(frozen)))
    assert found.frozen.scores["quantized"].value == pytest.approx(found.frozen.scores["previous"].value - on_it.fell)
    assert on_it.examples == [], "no text of the suite goes into a card"
    gone = msgspec.structs.replace(live, artefact="gone")
    lost_live = compare(setting, result.reports, exact, interactions, [gone])
    assert (lost_live.previous, lost_live.unanswered) == (None, live.id)


def test_the_gate_says_no_to_an_untrained_student_and_nothing_is_exported_or_registered(
    tiny: Path, tmp_path: Path
) -> None:
    bench = Bench(tmp_path / "state", tiny)
    result = bench.run("bad", max_steps=1)
    assert (result.outcome, result.version) == ("refused", None)
    assert any("not surely at least" in reason for reason in result.verdict.reasons)
    assert bench.phases == ALL[:8]
    assert bench.registry.added == {}
    assert bench.sent == []
    state = Cycles(bench.config.state).load("bad")
    assert state is not None
    assert state.outcome == "refused"


def test_a_student_need_not_be_surer_than_the_teacher_is_of_itself(tiny: Path, tmp_path: Path) -> None:
    """No student is surely right in 999 of 1,000 by a hundred records. The teacher is asked once, before training."""
    asked: list[str] = []

    async def ask(route: str, messages: Sequence[Mapping[str, str]], *, parameters: Any = None) -> str:
        asked.append(route)
        return "something else" if len(asked) % 3 == 0 else tiny_model.answer(messages[-1]["content"])

    gate = {"min_quality": 0.999, "teacher_route": "plain"}
    bench = Bench(tmp_path / "state", tiny, gate=gate)
    with pytest.raises(Killed):
        bench.run("again", seams=Seams(send=bench.send, scorer=lambda _: exact, ask=ask), progress=kill_in("train"))
    count = len(asked)
    result = bench.run("again", seams=Seams(send=bench.send, scorer=lambda _: exact, ask=ask))
    assert result.outcome == "registered"
    assert result.verdict.checks["teacher_n"] == result.reports["teacher"].n == count
    assert result.reports["teacher"].agreement == pytest.approx(2 / 3, abs=0.05)
    assert result.verdict.checks["wanted"] == pytest.approx(0.999 * result.reports["teacher"].upper)
    alone = Bench(tmp_path / "alone", tiny, gate={"min_quality": 0.999}).run("alone")
    assert alone.outcome == "refused"


def test_a_student_that_fails_as_a_whole_is_registered_for_what_it_is_sure_of(tiny: Path, tmp_path: Path) -> None:
    """No student is surely right in 999 of 1,000 by a hundred records."""
    route = {"quality": {"margin": 0.001}, "selective": {"max_risk": 0.1, "min_coverage": 0.3}}
    bench = Bench(tmp_path / "state", tiny, route=route)
    result = bench.run("part")
    assert (result.outcome, result.verdict.gate, result.verdict.mode) == ("registered", "passed", "selective")
    (sent,) = bench.sent
    assert isinstance(sent, Happened)
    thresholds = sent.event.data["thresholds"]
    shares = sent.event.data["shares"]
    assert sent.event.data == {"gate": "passed", "mode": "selective", "thresholds": thresholds, "shares": shares}
    assert sum(shares) == pytest.approx(1.0)
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[-1] == 1e-6
    manifest = Store(bench.config.artefacts).manifest("part")
    assert manifest.report["confidence"]["thresholds"] == thresholds
    start = manifest.report["confidence"]["start"]
    assert start == manifest.gate["checks"]["selective"]
    assert start["coverage_lower"] >= 0.3
    assert start["risk_upper"] <= 0.1


def test_where_thinking_is_kept_a_student_that_thinks_is_judged_by_its_answers(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state", tiny, thinks=True, epochs=4, data={"reasoning": "keep"})
    result = bench.run("thinks")
    assert result.outcome == "registered", result.verdict.reasons
    outcomes = result.reports["quantized"].outcomes
    assert all(o.reasoning == f"So {o.text}" for o in outcomes if o.value == 1.0)
    assert all("think" not in o.text for o in outcomes)
    manifest = Store(bench.config.artefacts).manifest("thinks")
    assert all("think" not in golden["answer"] for golden in manifest.golden)
    generator = GenAIGenerator(Store(bench.config.artefacts).path("thinks"), threads=1)
    for golden in manifest.golden:
        (found,) = generator.generate([golden["messages"]], max_new_tokens=golden["max_tokens"])
        assert found.text == golden["answer"]


def test_a_held_out_file_that_changes_within_a_cycle_is_noticed(tiny: Path, tmp_path: Path) -> None:
    bench, given = Bench(tmp_path / "state", tiny), tmp_path / "held_out.jsonl"
    lines = [msgspec.json.encode({"messages": e.messages, "answer": e.answer}) for e in map(example, range(9000, 9024))]
    given.write_bytes(b"\n".join(lines))
    asked: dict[str, Any] = {"max_steps": 1, "held_out": str(given), "override": Override("ops", "to see it fail")}
    with pytest.raises(Killed):
        bench.run("mine", progress=kill_in("train"), **asked)
    given.write_bytes(b"\n".join(lines[1:]))
    with pytest.raises(
        CycleError, match=r"held_out: .*held_out\.jsonl was changed since this cycle's data set was built"
    ):
        bench.run("mine", **asked)
    given.write_bytes(b"\n".join(lines))
    assert bench.run("mine", **asked).outcome == "registered"


def test_an_audited_override_registers_a_failing_candidate(tiny: Path, tmp_path: Path) -> None:
    """Judged by given records; the override is in the event, the manifest and the lineage."""
    bench = Bench(tmp_path / "state", tiny)
    given = tmp_path / "held_out.jsonl"
    lines = [{"messages": e.messages, "answer": e.answer} for e in map(example, range(9000, 9024))]
    given.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    override = Override("ops", "to see it fail")
    result = bench.run("forced", max_steps=1, override=override, held_out=str(given))
    assert result.outcome == "registered"
    assert result.reports["student"].n == 24
    assert bench.registry.added["forced"].lineage["gate"] == "overridden"
    kept = read_suite(suite_file(bench.config.state, "colours"))
    assert {e.id for e in kept} == {e.id for e in load(result.folder / "dataset").test}, "up to 200"
    assert not (result.folder / "building").exists()
    (sent,) = bench.sent
    assert isinstance(sent, Happened)
    assert sent.event.data == {"gate": "overridden", "who": "ops", "why": "to see it fail"}
    manifest = Store(bench.config.artefacts).manifest("forced")
    assert (manifest.gate["gate"], manifest.gate["who"]) == ("overridden", "ops")
    assert manifest.gate["reasons"]


def test_a_cycle_without_enough_examples_is_skipped_and_says_so(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state", tiny, records=4)
    with pytest.raises(NotEnoughExamples):
        bench.run("early")
    assert bench.outcomes == ["skipped"]
    assert not (Cycles(bench.config.state).folder("early") / "building").exists(), "it would hold texts"
    state = Cycles(bench.config.state).load("early")
    assert state is not None
    assert state.read_to == bench.log.end(Stream.INTERACTIONS, key="colours")
    with pytest.raises(CycleError, match="has ended"):
        bench.run("early")


def test_a_route_without_a_student_is_refused(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state", tiny, records=4)
    with pytest.raises(CycleError, match="no route 'plain' with a student; there is: colours"):
        bench.run("x", route="plain")


def test_two_processes_never_work_on_one_cycle(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state", tiny, records=4)
    with Cycles(bench.config.state).lock("busy"), pytest.raises(CycleBusy, match="another process"):
        bench.run("busy")


def test_the_lineage_names_the_local_teachers_by_their_weights(tiny: Path, tmp_path: Path) -> None:
    policy = RoutePolicy.model_validate(
        {
            "teachers": ["up/m"],
            "student": {"base": str(tiny), "recipe": "logits"},
            "retrain": {"distil": {"teacher": str(tiny)}},
        }
    )
    lineage = Job(str(tmp_path), policy, tmp_path, silent).lineage
    assert lineage["teachers"] == {str(tiny): digest(tiny / "model.safetensors")}
    assert lineage["policy"]["retrain"]["distil"]["temperature"] == 4.0
