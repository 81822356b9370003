"""A log of a list, and records and examples of the tiny task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import tiny_model

from collector.frames import Reported
from collector.log import Entry, Record, Stream
from collector.log_sqlite import SqliteLog
from collector.record import Answer, Interaction, RightAnswer, encode
from retrainer.data.curate import Example, Side
from retrainer.data.dataset import Dataset, DatasetManifest, digest, write
from retrainer.progress import Progress, silent
from retrainer.recipes import Job
from router.decision import Arm
from router.policy import RoutePolicy


class CountedLog(SqliteLog):
    """A log that goes with the test, and counts how often its interactions are read."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.reads = 0

    def read(self, stream: Stream, offset: int, limit: int = 1000, *, key: str) -> list[Entry]:
        self.reads += stream is Stream.INTERACTIONS
        return super().read(stream, offset, limit, key=key)


def interaction(number: int, **changes: object) -> Interaction:
    """The n-th exchange of the tiny task, answered by the teacher; `changes` replace fields."""
    text = tiny_model.question(number)
    made = Interaction(
        id=f"x{number}",
        at=1000.0 + number,
        route="colours",
        kind="chat",
        arm=Arm.TEACHER,
        version=None,
        propensity=1.0,
        eligible=True,
        policy_version="p",
        rollout_revision=0,
        consent="opt-out",
        scrubber="s1",
        cluster=f"c{number}",
        stream=False,
        request={"model": "m", "messages": tiny_model.messages(number)},
        answers=(teacher(tiny_model.answer(text)),),
    )
    return msgspec.structs.replace(made, **changes)


def teacher(text: str, **changes: object) -> Answer:
    made = Answer(
        arm=Arm.TEACHER,
        upstream="up/m",
        status=200,
        finish_reason="stop",
        message={"role": "assistant", "content": text},
    )
    return msgspec.structs.replace(made, **changes)


def fill(log: CountedLog, records: Sequence[Interaction]) -> None:
    log.append([(Stream.INTERACTIONS, Record(id=r.id, key=r.route, at=r.at, value=encode(r))) for r in records])


def report(log: CountedLog, *reported: tuple[str, str], at: float = 5000.0) -> None:
    """Right answers that clients reported of requests (id, answer), one after the other."""
    for n, (request_id, text) in enumerate(reported):
        said = {"role": "assistant", "content": text}
        right = RightAnswer(request_id=request_id, at=at + n, message=said, scrubber="s1")
        name = f"fb_{at + n}_{request_id}"
        kept = Reported(id=name, at=at + n, route="colours", request_id=request_id, answer=encode(right))
        value = msgspec.msgpack.encode(kept)
        log.append([(Stream.FEEDBACK, Record(id=f"{name}:answer", key="colours", at=at + n, value=value))])


def example(number: int, *, cluster: str | None = None, text: str | None = None, answer: str | None = None) -> Example:
    """The n-th example of the tiny task."""
    question = tiny_model.question(number) if text is None else text
    return Example(
        id=f"x{number}",
        offset=number,
        at=float(number),
        cluster=cluster or f"c{number}",
        messages=[{"role": "system", "content": tiny_model.SYSTEM}, {"role": "user", "content": question}],
        answer=answer if answer is not None else tiny_model.answer(question),
    )


def training_folder(folder: Path, base: Path, *, recipe: str = "lora", **retrain: Any) -> Path:
    """A cycle's folder with a data set of the tiny task, ready to train in; see `training_job`."""
    made = [msgspec.structs.replace(example(n), group=f"g{n}") for n in range(120)]
    parts = {Side.TRAIN: made[:96], Side.VALIDATION: made[96:112], Side.TEST: made[112:]}
    manifest = DatasetManifest(
        route="colours",
        digest=digest(parts),
        first=0,
        end=120,
        read=120,
        counts={},
        groups=120,
        dropped={},
        upstreams={},
        scrubbers={},
    )
    dataset = Dataset(
        train=parts[Side.TRAIN], validation=parts[Side.VALIDATION], test=parts[Side.TEST], manifest=manifest
    )
    folder.mkdir(parents=True)
    write(dataset, folder / "dataset")
    policy = {
        "teachers": ["up/m"],
        "student": {"base": str(base), "recipe": recipe},
        "retrain": {"learning_rate": 5e-3, "epochs": 2, "checkpoint_steps": 3, **retrain},
    }
    (folder / "policy.json").write_bytes(msgspec.json.encode(policy))
    return folder


def training_job(folder: Path, progress: Progress = silent) -> Job:
    """What a recipe works on, in a folder that `training_folder` made."""
    policy = RoutePolicy.model_validate_json((folder / "policy.json").read_bytes())
    return Job(str(folder / "state"), policy, folder, progress)
