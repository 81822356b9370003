"""The same work in several processes at the same moment."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from typing import Any

SECONDS = 120.0


def race(work: Callable[[str, int, Barrier], Any], url: str, *, racers: int = 2) -> list[Any]:
    """What `work(url, number, barrier)` returned in each process; all wait at the barrier for each other."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(racers, timeout=SECONDS), context.Queue()
    processes = [context.Process(target=_run, args=(work, url, n, barrier, results)) for n in range(racers)]
    for process in processes:
        process.start()
    found = [results.get(timeout=SECONDS) for _ in processes]
    for process in processes:
        process.join()
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return found


def _run(work: Callable[[str, int, Barrier], Any], url: str, number: int, barrier: Barrier, results: Any) -> None:
    try:
        results.put(work(url, number, barrier))
    except BaseException as error:
        barrier.abort()
        results.put(error)
