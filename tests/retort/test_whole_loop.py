"""The whole loop with a tiny, really trained model: captured, trained, proven, promoted, spoilt, rolled back.

Real processes (`retort up`), the real openai client, a teacher on loopback. Processes are killed on the way.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from whole_loop import EXAMPLES, Loop, route_events, running, stage, swap

from collector import Stream, decode_interaction, open_log
from retort.demo.proxy import Fault
from router import Arm, EventKind, Stage, open_registry

pytestmark = [pytest.mark.e2e, pytest.mark.quiet, pytest.mark.train, pytest.mark.timeout(240)]


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.service)])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the log is to be."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return str(request.getfixturevalue("broker").url(f"loop-{secrets.token_hex(4)}"))


@pytest.fixture
async def loop(tmp_path: Path, log_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loop]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two gain nothing on a tiny model, and lose a lot on a busy machine
    async with running(tmp_path, log_url, retrain={"quantization": "int8"}) as made:
        yield made


async def test_the_loop_turns_and_survives_kills_faults_and_a_stop(loop: Loop) -> None:
    registry = open_registry(loop.config.registry)
    log = open_log(loop.config.log)
    # Captured, though the collector is killed on the way: the gateway keeps what is not acknowledged.
    await loop.traffic(lambda: loop.sent >= 100, most=101)
    await loop.kill("collector")
    await loop.traffic(lambda: loop.sent >= EXAMPLES, most=EXAMPLES)
    # Trained, exported, loaded, though the retrainer is killed while it works.
    await loop.until(lambda: any((Path(loop.config.state) / "cycles").glob("*/state.json")), 60)
    await loop.kill("retrainer")
    await loop.until(lambda: stage(registry) is not None, 150)
    await loop.until(lambda: (stage(registry) or ("", None))[1] is Stage.SHADOW, 60)
    # Proven in shadow and over the steps, though promoter, engine and gateway were killed.
    for room in ("promoter", "engine", "gateway"):
        await loop.kill(room)
    await loop.until(lambda: sum(e.kind is EventKind.READY for e in route_events(log)) == 2, 60)
    await loop.until(loop.answers, 60)
    await loop.traffic(lambda: (stage(registry) or ("", None))[1] is Stage.LIVE, most=2000)
    found = stage(registry)
    assert found is not None
    version, now = found
    assert now is Stage.LIVE, loop.output.read_text()[-4000:]
    version = await swap(loop, registry, version)
    # The engine is killed while its student is live under traffic: users notice nothing, and the student serves again.
    ready = sum(e.kind is EventKind.READY for e in route_events(log))
    await loop.kill("engine")
    await loop.traffic(lambda: sum(e.kind is EventKind.READY for e in route_events(log)) > ready, most=600)
    loop.served.clear()
    await loop.traffic(lambda: version in loop.served, most=100)
    assert registry.version(version).stage is Stage.LIVE, "\n".join(map(str, registry.transitions("colours")))
    assert loop.failed == []
    assert version in loop.served
    # Wrong answers are noticed and taken out.
    loop.proxy.faults[version] = Fault.WRONG
    await loop.traffic(lambda: registry.version(version).stage is Stage.ROLLED_BACK, most=1000)
    assert registry.version(version).stage is Stage.ROLLED_BACK
    loop.proxy.faults.clear()
    # Promoted by hand; failures are taken out by the hard stop, and no client sees one.
    status, said = await loop.retort.command("promote", "colours", version, "--why", "mended")
    assert status == 0, said
    await loop.until(lambda: registry.snapshot().rollouts["colours"].live == version, 10)
    await asyncio.sleep(2.0)  # a rollout change reaches every worker within two seconds
    loop.proxy.faults[version] = Fault.FAILING
    await loop.traffic(lambda: registry.version(version).stage is Stage.ROLLED_BACK, most=400)
    causes = [t.cause for t in registry.transitions("colours") if t.version == version]  # others come meanwhile
    assert causes[-1] == "hard_stop", causes
    assert loop.failed == []
    assert version in loop.served
    # A stop drains: every exchange is in the log, once; and the log reproduces every decision.
    await loop.traffic(lambda: False, most=20)
    assert await loop.retort.stop() == 0
    kept = [decode_interaction(e.value) for e in log.read(Stream.INTERACTIONS, 0, 100_000, key="colours")]
    assert len(kept) == loop.sent
    assert {k.answers[0].arm for k in kept} == {Arm.TEACHER, Arm.STUDENT}
    status, said = await loop.retort.command("replay", "--json")
    assert status == 0, said
    assert json.loads(said)["colours"]["decisions"] == len(registry.transitions("colours"))
    registry.close()
    log.close()
