"""A training in several processes, on one machine or more: `accelerate launch` starts them, and each runs this module.

    accelerate launch --config_file deploy/training/fsdp.yaml -m retrainer.train.launch CYCLE_FOLDER

A cycle starts the processes of its own machine; where the configuration names more machines, the same line is run on
each other one with its `--machine_rank`, and the cycle's folder is on a disk that all share. The processes leave the
finished training's checkpoint, from which the cycle goes on alone.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from exporters.child import ending_with
from retrainer.errors import CycleError, Interrupted, LaunchBroke, OutOfMemory, RetrainerError, TrainingDiverged
from retrainer.job import Job
from retrainer.progress import Progress, silent
from retrainer.stopping import EXIT_AGAIN, GRACE_SECONDS, Stoppable
from router.policy import RoutePolicy

MOST_SAID = 300  # characters of a log's last line
_FAILURES: dict[str, type[RetrainerError]] = {e.__name__: e for e in (CycleError, OutOfMemory, TrainingDiverged)}


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the processes read from the cycle's folder."""

    state: str
    policy: dict[str, Any]
    method: str
    max_steps: int | None


def launch(job: Job, method: str, config: str) -> None:
    """Train in the processes that the accelerate configuration at `config` asks for. Raises CycleError, OutOfMemory,
    TrainingDiverged, Interrupted, LaunchBroke."""
    if not Path(config).is_file():
        raise CycleError(f"retrain.launch: there is no file {config}")
    order = _Order(
        state=str(Path(job.state).absolute()),
        policy=job.policy.model_dump(mode="json"),
        method=method,
        max_steps=job.max_steps,
    )
    (job.folder / "launch.json").write_bytes(msgspec.json.encode(order))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "-m", __name__]
    log = job.folder / "launch.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - our own interpreter, arguments as a list
            [*command, str(job.folder.absolute())],
            stdout=subprocess.PIPE,
            stderr=output,
            preexec_fn=ending_with(os.getpid()),
        ) as child,
    ):
        try:
            with forwarding(child) as stopped:
                failure = _follow(child, job.progress)
        except BaseException:
            child.terminate()
            try:
                child.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
            raise
    if failure is not None:
        raise failure
    if stopped:
        raise Interrupted
    if child.returncode != 0:
        lines = log.read_text(errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "nothing")[:MOST_SAID]
        raise LaunchBroke(f"`accelerate launch` ended with status {child.returncode}, its log {log} with: {said}")


@contextmanager
def forwarding(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Pass a SIGTERM on to the processes at once, which have the same time to save as this one. Yields the signals that
    came. In a process's main thread; elsewhere none come."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.getsignal(signal.SIGTERM)

    def both(number: int, frame: FrameType | None) -> None:
        came.append(number)
        child.terminate()
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, both)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _follow(child: subprocess.Popen[bytes], progress: Progress) -> RetrainerError | None:
    """Pass on what the first process tells, to its end; returns why it failed, if it said so."""
    failure: RetrainerError | None = None
    for line in child.stdout or ():
        try:
            told = json.loads(line)
            kind, fields = told["retort"], told["fields"]
        except (ValueError, TypeError, KeyError):
            continue  # some library's own words
        if kind == "progress":
            progress(*fields)
        else:
            failure = _FAILURES[kind](*fields)
    child.wait()
    return failure


def _tell(kind: str, *fields: Any) -> None:
    # On a line of its own, whatever another process was writing. `launch` reads it.
    print("\n" + json.dumps({"retort": kind, "fields": fields}), flush=True)  # noqa: T201


def main(folder: Path) -> int:
    """One of the processes. Returns 0, 1 where training failed, 75 where it was told to stop."""
    from accelerate import PartialState  # noqa: PLC0415 - heavy: torch
    from accelerate.utils import parse_flag_from_env  # noqa: PLC0415

    from retrainer.train import zero  # noqa: PLC0415
    from retrainer.train.chat import prepare  # noqa: PLC0415
    from retrainer.train.sequence import settings  # noqa: PLC0415

    ending_with(os.getppid())()  # a killed launcher leaves nobody behind who would write a checkpoint
    order = msgspec.json.decode((folder / "launch.json").read_bytes(), type=_Order)
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        zero.gloo_alone()
    state = PartialState()
    progress = Stoppable((lambda *told: _tell("progress", *told)) if state.is_main_process else silent)
    progress.listen()
    job = Job(order.state, RoutePolicy.model_validate(order.policy), folder, progress, max_steps=order.max_steps)
    made = settings(job.policy.retrain, order.method, max_steps=order.max_steps)  # type: ignore[arg-type]
    try:
        training = prepare(job.base.folder, job.rows, made, tokenizer=job.tokenizer, watched=job.watched_rows)
        training.run(folder / "train", progress=progress)
    except Interrupted:
        return EXIT_AGAIN
    except RetrainerError as error:
        if state.is_main_process:
            _tell(type(error).__name__ if type(error).__name__ in _FAILURES else "CycleError", str(error))
        return 1
    finally:
        state.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
