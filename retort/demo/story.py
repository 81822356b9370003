"""The demo's story: the whole loop on real input, a hot swap, then two bad ends made on purpose."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from rich.console import Console

from retort.demo.bars import Bars
from retort.demo.outcome import Outcome, Told, build
from retort.demo.proxy import Fault, FaultyProxy
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import (
    AT_ONCE,
    CAPACITY_RECORDS,
    CAPTURE_RATE,
    CAPTURED,
    EVIDENCE_RATE,
    HELD_OUT,
    ROUTE,
    SWAPPED,
    Places,
    evidence_rate,
)
from retort.demo.swap import register_twin
from retort.demo.traffic import Sent, Traffic
from retort.demo.watch import Watch
from retort.errors import StartError
from retort.sample.records import Package, packages
from retort.settings import load
from router import Stage

SEED = 11
FEW = 24
CYCLE_SECONDS = 3600.0
LOAD_SECONDS = 600.0
MOST_EVIDENCE = 5000  # requests after which a stage is given up


class DemoFailed(StartError):
    """A phase did not come to its end; the message says which."""


class Demo:
    """One run. Every phase raises DemoFailed where it does not come to its end."""

    def __init__(self, places: Places, console: Console) -> None:
        self._places = places
        self._config = load(str(places.config))
        self._console = console
        self._retort = RetortProcess(places.config, places.url.removesuffix("/v1"), places.folder / "retort.log")
        self._proxy = FaultyProxy(f"http://127.0.0.1:{places.engine_port}")
        self._traffic = Traffic(places.url)
        self.phases: dict[str, float] = {}
        records = random.Random(SEED).sample(packages(), len(packages()))  # noqa: S311 - a fixed draw
        self._held_out, rest = records[:HELD_OUT], records[HELD_OUT:]
        self._captured, evidence = rest[:CAPTURED], rest[CAPTURED:]
        self._evidence: Iterator[Package] = itertools.cycle(evidence)
        self._rate = EVIDENCE_RATE

    @property
    def sent(self) -> list[Sent]:
        """What the client sent so far."""
        return self._traffic.sent

    async def run(self) -> Outcome:
        """The story, from the first request to the end of all processes."""
        with self.phase("start"):
            await self._proxy.start(self._places.proxy_port)
            await self._retort.start()
        watch = Watch(self._config, lambda: len(self._traffic.sent))
        recording = asyncio.create_task(watch.record())
        try:
            outcome = await self._tell(watch)
        finally:
            recording.cancel()
            with self.phase("stop"):
                status = await self._retort.stop()
            await self._traffic.close()
            await self._proxy.close()
        return msgspec.structs.replace(outcome, stopped_cleanly=status == 0)

    async def _tell(self, watch: Watch) -> Outcome:
        with self.phase("capture"):
            await self._capture()
        student = await self._learn(watch)
        with self.phase("shadow"):
            await self._evidence_until(watch, student, "shadow", {Stage.CANARY, Stage.REJECTED})
        # Training takes what serving leaves: the bad candidate is made while the good one climbs, and waits its turn.
        # On the same cores vLLM is left too little for the SLO: there it is made afterwards.
        may_train = asyncio.Event()
        if self._config.engines["local"].runtime != "vllm":
            may_train.set()
        making = asyncio.create_task(self._make_bad_candidate(watch, may_train))
        try:
            with self.phase("canary"):
                await self._evidence_until(watch, student, "canary", {Stage.LIVE, Stage.ROLLED_BACK, Stage.REJECTED})
            served = list(self._traffic.sent)
            self._must_be_live(watch, student, "was not promoted")
            with self.phase("bad candidate"):
                may_train.set()
                bad = await making
                await self._until(
                    lambda: watch.stage(bad) is Stage.SHADOW, "the bad candidate to load", seconds=LOAD_SECONDS
                )
                # Each request is answered twice, by the live student and by the candidate: half as many are sent.
                ends = {Stage.REJECTED, Stage.CANARY, Stage.LIVE}
                await self._evidence_until(watch, bad, "bad candidate", ends, rate=self._rate / 2)
                self._must_be_live(watch, student, "was taken out beside the bad candidate")
        finally:
            making.cancel()
        with self.phase("hot swap"):
            twin, swapped = await self._swap(watch, student)
        with self.phase("live, wrong"):
            wrong = await self._spoil(watch, student, Fault.WRONG)
        with self.phase("live, failing"):
            await self._promote(student, "the demo mended the proxy")
            await self._spoil(watch, student, Fault.FAILING)
        with self.phase("replay"):
            replayed, _ = await self._retort.command("replay")
        return build(
            watch,
            student=student,
            bad=bad,
            twin=twin,
            told=Told(sent=self._traffic.sent, before_faults=served, swapped=swapped, while_wrong=wrong),
            replayed=replayed == 0,
        )

    async def _capture(self) -> None:
        """The held-out records first, with the client's word that they must not be kept; then those to learn from."""
        told = {"x-retort-consent": "no"}
        answers: dict[str, str] = {}
        with Bars(self._console) as bars:
            bars.follow("held out", HELD_OUT, lambda: len(answers))
            await self._traffic.run(self._held_out, rate=CAPTURE_RATE, headers=told, answers=answers)
        lines = [
            msgspec.json.encode({"messages": package.messages, "answer": answers[package.package]})
            for package in self._held_out
        ]
        self._places.held_out.write_bytes(b"\n".join(lines))
        self._places.few_held_out.write_bytes(b"\n".join(lines[:FEW]))
        before = len(self._traffic.sent)
        with Bars(self._console) as bars:
            bars.follow("captured", CAPTURED, lambda: len(self._traffic.sent) - before)
            await self._traffic.run(self._captured, rate=CAPTURE_RATE)

    async def _learn(self, watch: Watch) -> str:
        """The retrainer starts by itself: enough new examples are there. Returns the version."""
        began = time.monotonic()
        with Bars(self._console) as bars:
            while time.monotonic() - began < CYCLE_SECONDS:
                cycle = watch.cycle()
                if cycle is not None:
                    bars.cycle(watch.cycles.standing(cycle.request.cycle_id))
                    if cycle.outcome is not None:
                        break
                await asyncio.sleep(0.3)
            else:
                raise DemoFailed("the training cycle did not end in time")
        if cycle.outcome != "registered":
            raise DemoFailed(f"the training cycle ended as {cycle.outcome}: {cycle.error}")
        start = time.monotonic() - began - sum(cycle.seconds.values())  # the trigger's poll, and the cycle's process
        phases = {"start": start, **cycle.seconds}
        self.phases |= {f"retrain: {name}": round(seconds, 1) for name, seconds in phases.items()}
        version = cycle.request.cycle_id
        self._say(f"{version} is registered: the gate let it through")
        with self.phase("load"):
            await self._until(
                lambda: watch.stage(version) is Stage.SHADOW, "the engine to load it", seconds=LOAD_SECONDS
            )
        with self.phase("capacity"):
            await self._choose_rate(watch.endpoint(version))
        return version

    async def _choose_rate(self, engine: str) -> None:
        """The load of all that follows, from what the engine itself answers; the gateway's evidence has none of it."""
        asked = Traffic(engine)
        try:
            capacity = await asked.capacity(self._held_out[:CAPACITY_RECORDS], at_once=AT_ONCE)
        finally:
            await asked.close()
        self._rate = evidence_rate(self._config.engines["local"].runtime, capacity)
        self._say(
            f"the engine answers {capacity:.1f} requests a second, {AT_ONCE} at once: "
            f"the load from here on is {self._rate:.1f} a second"
        )

    async def _evidence_until(
        self, watch: Watch, version: str, name: str, ends: set[Stage], *, rate: float | None = None
    ) -> None:
        """Traffic until the version leaves the stage, with its evidence drawn against the boundary."""
        with Bars(self._console) as bars:
            watching = asyncio.create_task(bars.evidence(watch, version))
            try:
                await self._traffic.run(
                    itertools.islice(self._evidence, MOST_EVIDENCE),
                    rate=rate or self._rate,
                    until=lambda: watch.stage(version) in ends,
                )
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
        self._say(f"{name}: {version} is now {watch.stage(version)}")

    async def _make_bad_candidate(self, watch: Watch, may_train: asyncio.Event) -> str:
        """A candidate that learned for two steps, taken on by an override that names who and why."""
        await may_train.wait()
        known = {v.id for v in watch.versions()}
        status, said = await self._retort.command(
            "retrain", ROUTE, "--max-steps", "2", "--held-out", str(self._places.few_held_out),
            "--override-gate", "the demo wants a bad candidate", "--who", "demo",
        )  # fmt: skip
        if status:
            raise DemoFailed(f"the bad candidate was not registered: {said}")
        return next(v.id for v in watch.versions() if v.id not in known)

    async def _swap(self, watch: Watch, student: str) -> tuple[str, list[Sent]]:
        """A twin of the live student takes its place under traffic, and gives it back. Returns its id and what was
        sent meanwhile."""
        twin = register_twin(self._config, watch.registry, student)
        await self._until(lambda: watch.stage(twin) is Stage.SHADOW, "the twin to load", seconds=LOAD_SECONDS)
        before = len(self._traffic.sent)
        for version in (twin, student):
            await self._swap_to(version)
            self._say(f"hot swap: {version} is now {watch.stage(version)}")
        return twin, self._traffic.sent[before:]

    async def _swap_to(self, version: str) -> None:
        """Promoted under traffic, which goes on until the version has answered SWAPPED times."""
        before = len(self._traffic.sent)
        promoted = asyncio.create_task(self._promote(version, "the demo swaps"))
        await self._traffic.run(
            itertools.islice(self._evidence, MOST_EVIDENCE),
            rate=self._rate,
            until=lambda: sum(s.served_by == version for s in self._traffic.sent[before:]) >= SWAPPED,
        )
        await promoted

    def _must_be_live(self, watch: Watch, version: str, else_said: str) -> None:
        if watch.stage(version) is not Stage.LIVE:
            log = self._places.folder / "retort.log"
            raise DemoFailed(f"{version} {else_said}: it is {watch.stage(version)}; see {log}")

    async def _promote(self, version: str, why: str) -> None:
        status, said = await self._retort.command("promote", ROUTE, version, "--why", why)
        if status:
            raise DemoFailed(f"promoting by hand: {said}")

    async def _spoil(self, watch: Watch, version: str, fault: Fault) -> list[Sent]:
        """Put a fault before the live student until traffic is taken back; returns what was sent meanwhile."""
        await self._until(
            lambda: watch.stage(version) is Stage.LIVE and watch.ready(version), "it to serve", seconds=LOAD_SECONDS
        )
        before = len(self._traffic.sent)
        self._proxy.faults[version] = fault
        try:
            await self._evidence_until(watch, version, f"live, {fault}", {Stage.ROLLED_BACK})
        finally:
            self._proxy.faults.pop(version)
        return self._traffic.sent[before:]

    async def _until(self, condition: Callable[[], bool], what: str, *, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {seconds:.0f} s for {what}")
            await asyncio.sleep(0.2)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Take a phase's time."""
        self._console.rule(name)
        began = time.monotonic()
        yield
        self.phases[name] = round(time.monotonic() - began, 1)

    def _say(self, text: str) -> None:
        self._console.print(f"[green]{text}[/green]", highlight=False)
