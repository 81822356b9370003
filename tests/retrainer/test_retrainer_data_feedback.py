"""Right answers that clients reported take the place of the teacher's in the next data set."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from retrainer_fakes import CountedLog, fill, interaction, report

from collector import Feedback, Interactions, Record, Stream, SubjectKeys
from collector.frames import Reported
from collector.record import Answer, RightAnswer, encode
from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, Options, build
from router.decision import Arm
from router.policy_data import DataPolicy

SAID = {"role": "assistant", "content": "x"}
STUDENT = Answer(arm=Arm.STUDENT, version="v", status=200, finish_reason="stop", message=SAID)


class Route:
    """A log, and the data sets that come of it."""

    def __init__(self, log: CountedLog, keys: SubjectKeys) -> None:
        self.log, self.keys = log, keys
        fill(log, [interaction(n) for n in range(200)])

    def made(self, *, most: int = 5000, work: Path | None = None, progress: Any = None, **more: Any) -> Dataset:
        policy = DataPolicy.model_validate(more.pop("policy", {}))
        how = {"progress": progress} if progress else {}
        options = Options(policy=policy, work=work, **how)
        return build(Interactions(self.log, self.keys), "colours", max_examples=most, options=options, **more)


@pytest.fixture
def route(log: CountedLog, keys: SubjectKeys) -> Route:
    return Route(log, keys)


def of(made: Dataset) -> dict[str, Example]:
    return {e.id: e for e in (*made.train, *made.held_out)}


def test_a_reported_answer_takes_the_place_of_the_teachers_or_of_none_and_says_so(route: Route) -> None:
    fill(route.log, [interaction(5, id="again"), interaction(300, arm=Arm.STUDENT, answers=(STUDENT,))])
    report(route.log, ("x5", "right"), ("x300", "right, too"), ("nobody's", "?"))
    made = route.made()
    examples = of(made)
    assert {e.id: e.answer for e in examples.values() if e.corrected} == {"x5": "right", "x300": "right, too"}
    assert examples["x300"].rejected == "x"
    assert "again" not in examples, "no newer answer of the teacher to the same prompt replaces it"
    assert "nobody's" not in examples
    assert (made.manifest.corrected, made.manifest.files) == (2, {})
    assert b"corrected" not in msgspec.json.encode(examples["x6"])
    assert "x5" in of(route.made(most=50)), "however old it is"


def test_the_newest_report_wins_and_the_operators_file_wins_over_it(route: Route, tmp_path: Path) -> None:
    report(route.log, ("x5", "first"), ("x5", "second"), ("x6", "a client's"))
    report(route.log, ("x5", "of before, though it came late"), at=4000.0)
    file = tmp_path / "right.jsonl"
    file.write_text('{"id": "x6", "answer": "the operator\'s"}\n')
    examples = of(route.made(policy={"corrections": str(file)}))
    assert (examples["x5"].answer, examples["x6"].answer) == ("second", "the operator's")
    assert examples["x6"].corrected


def test_what_a_student_can_not_learn_is_left_out_and_the_wrong_answer_stays_out_too(route: Route) -> None:
    report(route.log, ("x5", " "), ("x6", "<PERSON_1> says so"))
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    right = RightAnswer(request_id="x7", at=1.0, message=call, scrubber="s")
    kept = Reported(id="fb_7", at=1.0, route="colours", request_id="x7", answer=encode(right))
    outcome = Feedback(id="fb_8", at=1.0, route="colours", request_id="x8", outcome=0.0)
    for one in (kept, outcome):
        value = msgspec.msgpack.encode(one)
        route.log.append([(Stream.FEEDBACK, Record(id=one.id, key="colours", at=1.0, value=value))])
    made = route.made()
    assert {"x5", "x6", "x7"}.isdisjoint(of(made))
    assert "x8" in of(made), "an outcome says nothing of what would have been right"
    assert (made.manifest.dropped["empty_answer"].count, made.manifest.dropped["placeholder"].count) == (2, 1)


def test_the_same_range_gives_the_same_bytes_also_after_a_kill(route: Route, tmp_path: Path) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL."""

    def kill(*_: Any) -> None:
        raise Killed

    report(route.log, ("x5", "right"))
    whole = route.made()
    with pytest.raises(Killed):
        route.made(work=tmp_path, progress=kill)
    report(route.log, ("x5", "changed"), ("x6", "right"), at=6000.0)
    assert route.made(work=tmp_path).manifest == whole.manifest, "its range is what it was when it began"
    ends = {"end": whole.manifest.end, "feedback_end": whole.manifest.feedback_end}
    assert route.made(**ends) == whole
    assert of(route.made())["x5"].answer == "changed"
    assert of(route.made(work=tmp_path, feedback_end=route.made().manifest.feedback_end))["x5"].answer == "changed"


def test_an_erased_persons_right_answer_is_in_no_data_set(route: Route) -> None:
    right = RightAnswer(request_id="x5", at=1.0, message={"role": "assistant", "content": "hers"}, scrubber="s")
    sealed = encode(right, route.keys.key("jane"))
    value = msgspec.msgpack.encode(Reported(id="fb_5", at=1.0, route="colours", request_id="x5", answer=sealed))
    route.log.append([(Stream.FEEDBACK, Record(id="fb_5", key="colours", at=1.0, value=value, subject="jane"))])
    assert of(route.made())["x5"].answer == "hers"
    route.keys.destroy("jane")
    assert not of(route.made())["x5"].corrected
