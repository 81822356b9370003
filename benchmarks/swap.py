"""Swaps and rollbacks under load: what clients notice, how soon the new version answers, and whether memory comes back.

    scripts/bench swap [--engine onnx|vllm] [--cycles 20] [--rate 50] [--short]

A gateway, an engine, a teacher and a registry in real processes (swap_stand); open-loop load at a steady rate, half of
it streams, in 200 conversations, a tenth of which the teacher holds back. Two students say different words (see
swap_student), so each answer tells by its every letter who made it. A cycle: a new version is loaded, becomes live, is
rolled back to the one before, which is warm, and becomes live again; the version before those is unloaded meanwhile.
With vLLM, which takes most of a minute to start, that is every fifth cycle; in the others the one before, which is
warm, becomes live, is rolled back, and becomes live again. Then a swap and a rollback once with 100 long streams open.
Goals: no answer failed, cut or mixed; no conversation changes its arm; p99 during the cycles within 1.5 times of the
steady state before and after; memory back at its level; 100 streams open at a swap. The p99 is told apart, too: while a
version is loaded, and while none is.
Run it on a quiet machine: about ten minutes (vLLM: twenty). Writes benchmarks/results/swap_ENGINE.json.
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import results_file
import swap_student
from swap_figures import Span, arms, ratios, spread, times
from swap_load import Load
from swap_stand import ENGINES, Stand

LOADING, WARM = "while a version is loaded", "while none is loaded"
OLD = 2  # versions that are loaded beside the live one before the first cycle, as after the last
HOLD_SECONDS = 2.0
STREAMS, STREAM_TOKENS, OPEN_GOAL = 120, 400, 100  # the teacher answers a tenth of them, and sooner
LEAST, RATE, EVERY = {"onnx": 10_000, "vllm": 1000}, {"onnx": 50.0, "vllm": 2.5}, {"onnx": 1, "vllm": 5}
STEADY = {"onnx": 60.0, "vllm": 180.0}  # at a low rate for longer: the p99 of 100 answers is the slowest of them
RATIO_GOAL, MEMORY_GOAL = 1.5, 1.05


def main() -> None:
    options = asked()
    with tempfile.TemporaryDirectory() as folder:
        written = students(options.students or Path(folder) / "students", options.engine)
        stand = Stand(Path(folder) / "stand", written, engine=options.engine)
        try:
            stand.start()
            figures, goals = asyncio.run(Measured(stand, options).run())
        finally:
            stand.stop()
    if options.short:
        print(figures)
        results_file.show("swap", goals)
    else:
        results_file.write(f"swap_{options.engine}", figures, goals)


def asked(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options. Exits where there is nothing to measure, or no vLLM to measure it with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=sorted(ENGINES), default="onnx")
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--rate", type=float, help="requests a second; by default 50, of vLLM 2.5")
    parser.add_argument("--steady", type=float, help="seconds of load before and after; by default 60, of vLLM 180")
    parser.add_argument("--students", type=Path, help="a folder that keeps the written students for the next run")
    parser.add_argument("--short", action="store_true", help="a try of two minutes (vLLM: of five); writes no result")
    options = parser.parse_args(arguments)
    for name, default in (("rate", RATE), ("steady", STEADY)):
        if getattr(options, name) is None:
            setattr(options, name, default[options.engine])
    if options.short:
        options.cycles, options.steady = 3, 10.0
    for name in ("cycles", "rate", "steady"):
        if not 0 < getattr(options, name) < math.inf:
            parser.error(f"--{name} is {getattr(options, name)}, and must be above 0")
    python = ENGINES[options.engine].python
    if python is not None and not python.is_file():
        parser.error(f"--engine {options.engine} needs {python}: scripts/install_vllm makes it")
    return options


def students(folder: Path, engine: str) -> dict[str, Path]:
    """Written once for each engine, and found there by the next run."""
    folder /= engine
    found = {word: folder / word.strip() for word in swap_student.WORDS}
    if not all((path / ENGINES[engine].mark).is_file() for path in found.values()):
        print("writing the two students", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        found = ENGINES[engine].write(folder)
    return found


class Measured:
    """One run over a started stand."""

    def __init__(self, stand: Stand, options: argparse.Namespace) -> None:
        self._stand, self._options = stand, options
        self._number = 0
        self._began = time.monotonic()
        self._load: Load
        self._live = self._before = ""
        self._flips: dict[str, list[float]] = {"swap": [], "rollback": [], "again": []}
        self._spans: dict[str, list[Span]] = {"steady": [], "swaps": [], LOADING: [], WARM: []}

    async def run(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        stand, options = self._stand, self._options
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(300)) as client:
            self._load = Load(client, stand.url, stand.words)
            for number in range(OLD + 1 + options.cycles + 1):  # before there is load: it is not the engine's work
                stand.publish(f"v{number}", swap_student.WORDS[number % 2])
            for _ in range(OLD + 1):
                await self._put(await self._loaded())
            over = asyncio.Event()
            load = asyncio.create_task(self._load.run(options.rate, over))
            used, memory = await self._steady("steady before"), [stand.memory()]
            began = time.monotonic()
            for cycle in range(options.cycles):
                await self._cycle(f"cycle {cycle + 1} of {options.cycles}", began, cycle)
            self._spans["swaps"].append((began, time.monotonic()))
            await self._ended()
            await self._steady("steady after")
            over.set()
            await load
            await self._load.finish()
            memory.append(stand.memory())
            many = await self._many()
            memory.append(stand.memory())
        return self._result(used, memory, many)

    async def _many(self) -> dict[str, Any]:
        """A swap and a rollback while many streams are open, and nothing else is asked."""
        at, texts = len(self._load.answers), self._load.first_texts
        next_one = await self._loaded()
        self._load.streams(STREAMS, STREAM_TOKENS)
        await asyncio.sleep(0.3)
        begun, before = self._load.first_texts - texts, self._live
        self._stand.live(next_one)
        open_then = len(self._load.inside)
        await self._say(f"a swap with {open_then} streams open, of which {begun} have begun")
        await asyncio.sleep(HOLD_SECONDS)
        self._stand.live(before, back=True)
        inside = len(self._load.inside)
        await self._load.finish()
        await self._ended()
        kept = self._load.answers[at:]
        return {
            "streams": len(kept),
            "open at the swap": open_then, "of which begun": begun, "open at the rollback": inside,
            "verdicts": dict(Counter(answer.verdict for answer in kept)),
            "last seconds": round(max(answer.seconds for answer in kept), 1),
        }  # fmt: skip

    async def _loaded(self) -> str:
        """The next version, loaded; its word is the one that the live version does not say."""
        number = self._number
        self._number += 1
        version = f"v{number}"
        self._stand.register(version, swap_student.WORDS[number % 2])
        await asyncio.to_thread(self._stand.until, lambda: version in self._stand.registry.snapshot().endpoints)
        return version

    async def _ended(self) -> None:
        """Wait until what was withdrawn last has ended."""
        await asyncio.to_thread(self._stand.until, lambda: len(self._stand.workers()) == OLD + 1)

    async def _put(self, version: str) -> None:
        await asyncio.to_thread(self._stand.live, version)
        self._before, self._live = self._live, version

    async def _cycle(self, name: str, began: float, done: int) -> None:
        loading, anew = time.monotonic(), done % EVERY[self._options.engine] == 0
        before, version = self._live, await self._loaded() if anew else self._before
        ready = time.monotonic()
        loaded = f"loaded in {ready - loading:.1f} s" if anew else "warm"
        self._flips["swap"].append(await self._flip(version))
        self._flips["rollback"].append(await self._flip(before, back=True))
        self._flips["again"].append(await self._flip(version))
        self._before, self._live = before, version
        self._spans[LOADING].append((loading, ready))
        self._spans[WARM].append((ready, time.monotonic()))
        bad = sum(answer.verdict != "ok" for answer in self._load.answers)
        left = (time.monotonic() - began) / (done + 1) * (self._options.cycles - done - 1) + self._options.steady
        await self._say(f"{name}: {loaded}; {len(self._load.answers)} answers, {bad} bad", left)

    async def _flip(self, version: str, *, back: bool = False) -> float:
        """Let it be live, and hold; returns the seconds until it gave its first answer."""
        at, began = len(self._load.answers), time.monotonic()
        await asyncio.to_thread(self._stand.live, version, back=back)
        while not any(answer.served == version and answer.at > began for answer in self._load.answers[at:]):
            if time.monotonic() - began > 60:
                raise SystemExit(f"swap: {version} is live for 60 s and gives no answer")
            await asyncio.sleep(0.02)
        seconds = time.monotonic() - began
        await asyncio.sleep(HOLD_SECONDS)
        return seconds

    async def _steady(self, name: str) -> dict[str, float]:
        """Steady load; returns the cores in use, by process."""
        began, before = time.monotonic(), self._stand.cpu()
        await asyncio.sleep(self._options.steady)
        ended, after = time.monotonic(), self._stand.cpu()
        self._spans["steady"].append((began, ended))
        await self._say(f"{name}: {len(self._load.answers)} answers")
        return {process: round((after[process] - cpu) / (ended - began), 3) for process, cpu in before.items()}

    async def _say(self, text: str, left: float = 0.0) -> None:
        more = f"; about {left / 60:.1f} min left" if left else ""
        print(f"{time.monotonic() - self._began:6.0f} s  {text}{more}", flush=True)

    def _result(
        self, used: dict[str, float], memory: list[dict[str, int]], many: dict[str, Any]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        answers, goal = self._load.answers, results_file.goal
        changed = arms(answers)
        by_span = {name: times(answers, spans) for name, spans in self._spans.items()}
        p99 = {name: ratios(found, by_span["steady"]) for name, found in by_span.items() if name != "steady"}
        counts = Counter(answer.verdict for answer in answers)
        figures = {
            "rate": self._options.rate,
            "cores in use, steady": used,
            "answers": len(answers),
            "verdicts": dict(counts),
            "by the teacher": sum(answer.arm == "teacher" for answer in answers),
            "by another arm than the conversation's": changed,
            "bad": [f"{a.served} {'stream' if a.stream else 'plain'}: {a.why}" for a in answers if a.verdict != "ok"][
                :20
            ],
            "times": by_span,
            "p99 during swaps, times the steady state": p99["swaps"],
            **{f"p99 {name}, times the steady state": p99[name] for name in (LOADING, WARM)},
            "seconds from the swap to the new version's first answer": spread(self._flips["swap"]),
            "seconds from the rollback to the old version's first answer": spread(self._flips["rollback"]),
            "memory, bytes": dict(zip(("before", "after", "after the streams"), memory, strict=True)),
            "many streams": many,
        }
        goals = [
            goal("answers", len(answers), ">=", LEAST[self._options.engine]),
            *(goal(f"answers {verdict}", counts[verdict], "==", 0) for verdict in ("failed", "cut", "mixed")),
            goal("answers by another arm than the conversation's", changed, "==", 0),
            *(goal(f"{k}: p99 during swaps, times steady", r, "<=", RATIO_GOAL) for k, r in p99["swaps"].items()),
            *(goal(f"{k}: p99 {LOADING}, times steady", r, "<=", RATIO_GOAL) for k, r in p99[LOADING].items()),
            goal("streams open at a swap", many["open at the swap"], ">=", OPEN_GOAL),
            goal("memory after, times before", round(_total(memory[1]) / _total(memory[0]), 3), "<=", MEMORY_GOAL),
        ]
        return figures, goals


def _total(memory: dict[str, int]) -> int:
    return memory["engine"] + memory["workers"]


if __name__ == "__main__":
    main()
