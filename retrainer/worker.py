"""The process that runs one cycle: `python -m retrainer.worker`, started by the daemon.

It reads the configuration and the request from its standard input (one line of JSON), and writes what happens to its
standard output, a line of JSON each: {"event": name, "fields": {...}}. Its input stays open as long as the daemon
lives; when it ends, so does this process, and the cycle goes on from its stored state later. On SIGTERM a training
saves a checkpoint first.

With `retrain.on` the heavy phases are done by `python -m retrainer.worker ORDER` on a cluster (`retrainer.ray_job`),
which ends before the others; ORDER is a file with the same line.
"""

import ctypes
import json
import logging
import os
import sys
import threading
import time
import traceback
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from collector import open_interactions
from collector.errors import CollectorError
from exporters.logs import FieldFormatter
from exporters.models import ArtefactError
from exporters.models.collect import find, remove
from exporters.models.open_store import open_store
from retrainer.cycle import run_request
from retrainer.errors import CycleError, Interrupted, NotEnoughExamples, PhaseElsewhere, RetrainerError
from retrainer.progress import Progress
from retrainer.state import Cycles, Request, Standing
from retrainer.stopping import EXIT_AGAIN, Stoppable
from router import Registry, open_registry
from router.config import Config
from router.errors import RouterError
from router.events import Events

log = logging.getLogger("retort.retrainer")

EXIT_DONE = 0
EXIT_ELSEWHERE = 76  # the next phase is heavy, and the route's heavy phases are done on a cluster
EXIT_FAILED = 77  # trying again would not help; 1 is Python's own, of what nobody foresaw
HEAVY = ("train", "evaluate_base", "evaluate_student", "export")
# What needs log, gateway, store or registry; and `evaluate_quantized`, whose times and price are of the machines that
# serve, not of the cluster's.
AT_HOME = ("dataset", "teacher", "evaluate_quantized", "compare", "safety", "card", "publish", "register")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # 0: a base may be fetched
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
NICENESS = 19  # training takes what serving leaves, and little more: at 10 answers beside it took a fifth longer
PROGRESS_EVERY = 0.5  # seconds
MOST_TOLD = 1000  # characters of an error; a library's may be a list of all weights


def main() -> int:
    """Run the cycle, or its heavy phases. Returns 0 when it ended (registered, refused or skipped) or they did, 75 when
    it should be tried again, 76 when they are due elsewhere, 77 when trying again would not help."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldFormatter("%(asctime)s %(levelname)-7s worker    %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of kernels that a CPU does without
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    away = len(sys.argv) > 1
    line = Path(sys.argv[1]).read_bytes() if away else sys.stdin.readline()
    if not away:
        threading.Thread(target=_end_with_the_daemon, daemon=True).start()
    os.nice(NICENESS)
    _keep_freed_memory()
    events = Events()
    events.subscribe(_tell)
    try:
        config, request = _order(line)
        progress = Stoppable(_Throttled(Cycles(config.state), request.cycle_id, told=not away))
        progress.listen()
        return (_away if away else _here)(config, request, events, progress)
    except Interrupted:
        os._exit(EXIT_AGAIN)  # taking the libraries down would cost seconds that the machine may not have
    except (RetrainerError, ArtefactError, CollectorError, RouterError) as error:
        again, why = error.retryable, str(error)
    except Exception as error:  # a full disk, a library's own, a fault of ours: the edge of the process
        log.exception("retrainer.worker_broke")
        again, why = True, _unforeseen(error)
    _tell("worker.error", {"error": why, "retryable": again})
    return EXIT_AGAIN if again else EXIT_FAILED


def _order(line: str | bytes) -> tuple[Config, Request]:
    """What is to be done. Raises CycleError where it is not of this Retort's."""
    order = json.loads(line)
    try:
        return Config.model_validate(order["config"]), msgspec.convert(order["request"], Request)
    except (ValidationError, msgspec.ValidationError) as error:
        raise CycleError(
            f"the cycle's order can't be read; is another version of Retort installed here? {error}"
        ) from error


def _here(config: Config, request: Request, events: Events, progress: Progress) -> int:
    """The cycle, or where the route names a cluster what that doesn't do."""
    on_ray = config.routes[request.route].retrain.on is not None
    try:
        with closing(open_registry(config.registry)) as registry, open_interactions(config) as interactions:
            run_request(
                config,
                request,
                registry=registry,
                interactions=interactions,
                events=events,
                progress=progress,
                mine=lambda phase: not (on_ray and _plain(phase) in HEAVY),
            )
            _tidy(config, registry)
    except PhaseElsewhere:
        return EXIT_ELSEWHERE
    except NotEnoughExamples as error:
        log.warning("retrainer.skipped", extra={"why": str(error)})
        return EXIT_DONE
    return EXIT_DONE


def _tidy(config: Config, registry: Registry) -> None:
    """Remove the artefacts of versions that ended long ago; where that can't be done now, another cycle does it."""
    try:
        store = open_store(config)
        remove(store, find(config, registry, store).ended)
    except Exception as error:  # whatever it is, the cycle has ended well
        log.warning("retrainer.artefacts_kept", extra={"error": str(error)})


def _away(config: Config, request: Request, events: Events, progress: Progress) -> int:
    """The heavy phases, on a machine that has neither log nor registry; ends before the first of AT_HOME."""
    nowhere: Any = _Nowhere()
    with suppress(PhaseElsewhere):
        run_request(
            config,
            request,
            registry=nowhere,
            interactions=nowhere,
            events=events,
            progress=progress,
            mine=lambda phase: _plain(phase) not in AT_HOME,
        )
    return EXIT_DONE


def _unforeseen(error: Exception) -> str:
    """What is told of an error that nobody foresaw. Where it is of a value it may quote a record, and is told by its
    place alone."""
    name = type(error).__name__
    if isinstance(error, ValueError | LookupError):
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{name} in {Path(place.filename).name}, line {place.lineno}; the retrainer's log has it whole"
    return f"{name}: {error}"[:MOST_TOLD]


class _Nowhere:
    """In the place of what only the retrainer's own machine has."""

    def __getattr__(self, name: str) -> Any:
        raise PhaseElsewhere(f"{name} is the retrainer's own machine's to do")


def _plain(phase: str) -> str:
    """Without the student that it is of, where a cycle makes several."""
    return phase.rpartition(".")[2]


def _tell(name: str, fields: dict[str, Any]) -> None:
    print(json.dumps({"event": name, "fields": fields}), flush=True)  # noqa: T201 - the daemon reads it


def _keep_freed_memory() -> None:
    """Training frees and takes the same big blocks at every step; left to itself, glibc gives them back to the kernel
    each time, and the page faults cost 8 to 30% of a step. Where there is no glibc nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


class _Throttled:
    """Progress, written for people and told to the daemon, at most twice a second."""

    def __init__(self, cycles: Cycles, cycle_id: str, *, told: bool = True) -> None:
        self._cycles, self._id, self._told = cycles, cycle_id, told
        self._last = ("", 0.0)

    def __call__(self, phase: str, done: int, total: int, seconds_left: float | None) -> None:
        now = time.monotonic()
        if phase == self._last[0] and done < total and now - self._last[1] < PROGRESS_EVERY:
            return
        self._last = (phase, now)
        standing = Standing(phase=phase, done=done, total=total, seconds_left=seconds_left)
        self._cycles.report(self._id, standing)
        if self._told:
            _tell("worker.progress", msgspec.to_builtins(standing))


def _end_with_the_daemon() -> None:
    sys.stdin.read()
    os._exit(EXIT_AGAIN)  # nothing to clean up: every file is complete or was never there


if __name__ == "__main__":
    sys.exit(main())
