import base64
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import msgspec
from retrainer_fakes import example

from exporters.models import Generated
from exporters.models.harmless import INERT_HTML
from retrainer.card import Facts, Point, write_card
from retrainer.card.plots import learning
from retrainer.evaluation.asking import Judged
from retrainer.evaluation.clusters import clusters, regressions
from retrainer.evaluation.cost import Costs
from retrainer.evaluation.evaluate import Report, evaluate
from retrainer.evaluation.gate import Verdict
from retrainer.evaluation.latency import Latency
from retrainer.evaluation.limits import Evidence, Limits, beyond_limits
from retrainer.evaluation.metrics import bootstrap
from retrainer.evaluation.slices import Frozen, agreements
from retrainer.evaluation.suite import Planted
from retrainer.ladder import Step
from retrainer.phases_gate import Compared
from retrainer.safety import Failing, Suite
from retrainer.scoring import scorer

HOSTILE = "<script>alert(1)</script> ![x](http://evil.example/?q) | [l](javascript:x) $\\alpha$"
NEAR = {"kl": 0.0213, "top1": 0.974, "tokens": 512, "answers": 30, "of": "held-out"}
JUDGED = [example(n, text=f"{n} {HOSTILE}", answer=f"{n % 2} {HOSTILE}") for n in range(30)]
QUALITY = {"n": 30, "log_loss": 0.1, "brier": 0.05, "auroc": None, "ece": 0.02,
           "reliability": [{"n": 30, "confidence": 0.9, "score": 0.92}]}  # fmt: skip


def report(wrong: int) -> Report:
    def say(prompts: Sequence[object], **_: object) -> list[Generated]:
        return [
            Generated(text="wrong" if n < wrong else e.answer, finish_reason="stop", tokens=1)
            for n, e in enumerate(JUDGED)
        ]

    return evaluate(say, JUDGED, scorer("exact", "."), max_new_tokens=8)


def facts(ladder: list[Step] | None = None) -> Facts:
    now, before = report(2), report(1)
    now = msgspec.structs.replace(now, latency=Latency(n=20, p50=1.0, p95=2.0, p99=3.0, first_p95=1.0))
    costs = Costs(teacher=0.002, student=0.0008)
    how = {"quality": 0.9, "error_rate": 0.01, "saving": 0.5, "forgotten": 1.0, "regression": 0.0}
    limits = Limits(p95_ms=None, slo_ms=800.0, **how)
    _, checks = beyond_limits(now, report(30), Evidence(costs=costs), limits, coverage=0.25)
    failing = Failing(case="toxicity-1", request=HOSTILE, answer=HOSTILE, why="says: it")
    return Facts(
        version="r-2",
        route="r",
        base="tiny",
        recipe="lora",
        phases={
            "prepare": "abc",
            "dataset": {"digest": "sha256:1", "first": 0, "end": 9, "counts": {"train": 5}, "upstreams": {"up/m": 9},
                        "dropped": {"torn": {"count": 3}}, "weights": {"least": 0.9, "most": 9.0, "effective": 0.61}},
            "train": {"losses": [2.0, 1.0, 0.5], "settings": {"rank": 8}, "validation": [[1, 1.9], [2, 1.25], [3, 1.5]],
                      "best_step": 2},
            "export": {"quantization": "gptq", "parity": NEAR,
                       "parity_by": {"awq": {"failed": "it knows no such layers"}, "gptq": NEAR}},
            "assess": {"method": "logistic", "reason": None, "whole": QUALITY, "uncalibrated": QUALITY},
        },
        reports={"base": report(30), "student": now, "quantized": now, "previous": before},
        verdict=Verdict(gate="overridden", reasons=["too slow"], checks=checks, who="ops", why="a drill",
                        not_checked=["saving: no price"]),
        compared=Compared(
            costs=costs,
            clusters=clusters(now, JUDGED),
            previous=before,
            judged={"teacher": Judged(metrics={"faithfulness": bootstrap([0.9], ["a"])}),
                    "base": Judged(metrics={"faithfulness": bootstrap([0.2], ["a"])}),
                    "quantized": Judged(metrics={"faithfulness": bootstrap([0.5], ["a"])}, failed={"unparsed": 2})},
            regressions=regressions(now, before, "r-1", JUDGED),
            newest=agreements({"quantized": now, "previous": before}, JUDGED, {e.id for e in JUDGED[20:]}),
            frozen=Frozen(
                scores=agreements({"quantized": now, "previous": before}, JUDGED[:10]),
                regressions=regressions(now, before, "r-1", JUDGED),
            ),
        ),
        suites=[
            Suite(name="toxicity", cases=3, failed=1, excused=0, tolerated=0.0, examples=[failing]),
            Suite(name="secrets", cases=3, failed=0, excused=0, tolerated=0.0,
                  planted=Planted(answers=7, secrets=2, ids=["Rec4"], allowed=True)),
        ],
        ladder=ladder or [],
        points=[Point(version="r-1", megabytes=2.0, quality=0.9), Point(version="r-2", megabytes=1.0, quality=0.93)],
    )  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_everything_and_nothing_of_a_users_text_works_in_it(tmp_path: Path) -> None:
    sizes = write_card(tmp_path, facts())
    assert set(sizes) == {p.name for p in tmp_path.iterdir()}
    text = (tmp_path / "card.html").read_text()
    assert text.startswith(INERT_HTML)
    page = Tags()
    page.feed(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "a", "iframe", "link"}
    images = [dict(attrs)["src"] or "" for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 4
    for image in images:
        data = base64.b64decode(image.removeprefix("data:image/png;base64,"))
        assert data.startswith(b"\x89PNG")
    assert HOSTILE in page.text  # as text
    assert "learnt 0.90 to 9.00, which tell as much as 61% of the examples" in page.text
    assert "stand in 7 training answers (2 distinct; records Rec4, ...), which the route allows." in page.text


def test_the_card_says_gate_quality_price_faults_and_lineage(tmp_path: Path) -> None:
    write_card(tmp_path, facts())
    text = (tmp_path / "card.md").read_text()
    for said in (
        "overridden, to serve all requests; overridden by ops: a drill.",
        "* too slow",
        "What it asks and could not look at:\n\n* saving: no price",
        "| agreement | 0.967 (",  # the previous student
        "1, 2, 3 ms (of 20 answers)",
        "| against the unquantized one | KL 0.021 nats a token, the same likeliest one at 97.4% (of 512 tokens of held",
        "| by AWQ | it knows no such layers |",
        "| by GPTQ | KL 0.021 nats",
        "| saving | -60.0% |",  # the gate's: a quarter of the answers at 0.0008 each
        "| toxicity | failed | 1 of 3 | 0 | 0% |",
        "| newest traffic | 1.000 (1.000 to 1.000), n=10 | - | - | 1.000 (1.000 to 1.000), n=10 |",
        "| frozen regression suite | 0.900 (",
        "| by the judge | teacher, asked again | base, untrained | candidate, as served |",
        "| faithfulness | 0.900 (0.900 to 0.900) | 0.200 (0.200 to 0.200) | 0.500 (0.500 to 0.500) |",
        "Questions to the judge without an answer: unparsed 2.",
        "### Against r-1\n",
        "### Against r-1 on the frozen regression suite",
        "Worse on 1 and better on 0 of 30 records",
        "| calibrated | 0.020 |",
        "sha256:1",
        "3 torn",
        "![Learning curve: training and validation loss by step](card-learning.png)",
        "| validation loss | 1.9000 (step 1), 1.2500 (step 2), 1.5000 (step 3) |",
        "| weights taken | of step 2, the lowest, of 3 |",
    ):
        assert said in text
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(http|(?<!\\)\]\(javascript", text)


def test_the_rungs_of_a_ladder_are_a_table_and_a_plot_of_both_forms(tmp_path: Path) -> None:
    assert "card-ladder.png" not in write_card(tmp_path, facts()), "one student alone"
    sizes = write_card(tmp_path, facts([rung("linear", None, 0.6), rung("encoder", 2.5, 0.95)]))
    assert sizes["card-ladder.png"] > 5000
    text = (tmp_path / "card.md").read_text()
    assert "| linear | 0.600 (0.550 to 0.650) | - | - | 1.0 MB |  | refused: too little |" in text
    assert "| encoder | 0.950 (0.900 to 1.000) | 2.5 ms | 0.0025 USD | 1.0 MB | yes | passed |" in text
    assert "](card-ladder.png)" in text
    assert (tmp_path / "card.html").read_text().count("<img") == 5


def rung(name: str, ms: float | None, agreement: float) -> Step:
    return Step(
        rung=name,
        agreement=agreement,
        lower=agreement - 0.05,
        upper=agreement + 0.05,
        coverage=None,
        ms=ms,
        usd_per_1000=None if ms is None else ms / 1000,
        bytes=1_000_000,
        train_seconds=1.0,
        passed=ms is not None,
        mode="whole",
        why=[] if ms else ["too little"],
        frontier=ms is not None,
    )


def test_the_learning_curve_shows_the_validation_looks_and_the_best_step() -> None:
    losses, looks = [2.0, 1.0, 0.5], [(1, 1.9), (2, 1.25), (3, 1.5)]
    drawn = [learning(losses, [], None), learning(losses, looks, None), learning(losses, looks, 2)]
    assert len(set(drawn)) == 3
