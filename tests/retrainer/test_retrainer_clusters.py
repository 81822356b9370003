from collections.abc import Sequence

from retrainer_fakes import example

from retrainer.data.curate import Example
from retrainer.evaluation.clusters import clusters, regressions
from retrainer.evaluation.evaluate import Outcome, Report


def report(values: Sequence[float | None], texts: Sequence[str] | None = None) -> Report:
    known = [v for v in values if v is not None]
    return Report(
        n=len(known), agreement=0.5, lower=0.4, upper=0.6, confidence=0.95, valid_json=None, leaked=0, unfinished=0,
        reasons={}, tokens=1, seconds=1.0,
        outcomes=[
            Outcome(id=str(n), text=texts[n] if texts else f"said {n}", finish_reason="stop", value=v, reason="differs")
            for n, v in enumerate(values)
        ],
    )  # fmt: skip


def test_few_answers_are_the_clusters_the_weakest_first_with_its_worst_records() -> None:
    judged = [example(n, answer="even" if n % 2 == 0 else "odd") for n in range(8)]
    values = [1.0, 0.5, 1.0, 0.0, 1.0, 1.0, None, 1.0]
    weak, strong = clusters(report(values), judged)
    assert (weak.name, weak.n, weak.agreement) == ("odd", 4, 0.625)
    assert [s.student for s in weak.worst] == ["said 3", "said 1"]
    assert weak.worst[0].request == judged[3].messages[-1]["content"]
    assert (strong.name, strong.n, strong.agreement, strong.worst) == ("even", 3, 1.0, [])
    assert weak.lower < weak.agreement < weak.upper


def test_free_answers_are_clustered_by_what_is_asked_and_named_by_its_words() -> None:
    topics = ("parcel delivery late courier", "invoice payment refund card")
    texts = [f"{topics[n % 2]} number {n}: please help with {topics[n % 2]} again" for n in range(60)]
    judged: list[Example] = [example(n, text=text, answer=f"answer {n}") for n, text in enumerate(texts)]
    found = clusters(report([float(n % 2) for n in range(60)]), judged)
    assert [(c.n, c.agreement) for c in found] == [(30, 0.0), (30, 1.0)]
    assert set(found[0].name.split(": ")[1].split(", ")) <= set(topics[0].split())


def test_requests_that_are_all_alike_are_one_cluster() -> None:
    judged = [example(n, text="please say something", answer=f"answer {n}") for n in range(60)]
    (found,) = clusters(report([float(n % 2) for n in range(60)]), judged)
    assert (found.n, found.agreement) == (60, 0.5)


def test_regressions_are_counted_with_the_greatest_shown() -> None:
    judged = [example(n) for n in range(5)]
    before = report([1.0, 1.0, 0.0, 1.0, None], ["a", "b", "c", "d", "e"])
    now = report([0.5, 0.0, 1.0, 1.0, 1.0])
    found = regressions(now, before, "v1", judged)
    assert (found.previous, found.n, found.lost, found.won) == ("v1", 4, 2, 1)
    assert found.p == 1.0
    assert [(s.before, s.student) for s in found.examples] == [("b", "said 1"), ("a", "said 0")]
    many = [example(n) for n in range(8)]
    assert regressions(report([0.0] * 8), report([1.0] * 8), "v1", many).p == 2 / 2**8
