"""A cycle's heavy phases on a real local Ray: the job trains, this process publishes and registers."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from daemon_run import collector_that_acknowledges, config, cycles_of, log_exchanges, running, until
from pydantic import ValidationError

from collector.frames import Happened
from retort.demo.settings import free_ports
from retrainer.ask import ask
from retrainer.audit import entries
from retrainer.daemon import WORKER
from retrainer.ray_job import RayFailed, run_job, write_order
from retrainer.state import Cycles, Request
from retrainer.worker import EXIT_DONE, EXIT_ELSEWHERE, EXIT_FAILED
from router import open_registry
from router.config import Config
from router.policy_cycle import RaySettings

TOKEN = "c" * 40  # for a cluster that lives as long as a test
CLUSTER = """
import sys, ray
ray.init(num_cpus=2, include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=int(sys.argv[1]),
         object_store_memory=80 << 20, configure_logging=False, log_to_driver=False)
print("ready", flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def ray(monkeypatch_module: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster that goes with its process."""
    pytest.importorskip("ray")
    (port,) = free_ports(1)
    started = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with started as cluster:
        assert cluster.stdout
        assert cluster.stdin
        assert cluster.stdout.readline() == b"ready\n"
        yield f"ray://127.0.0.1:{port}"
        cluster.stdin.close()
        assert cluster.wait(60) == 0


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield patch


def settings(folder: Path, ray: str, base: Path, **retrain: object) -> Config:
    made = config(folder / "s", base=str(base), on=ray, learning_rate=5e-3, epochs=2, **retrain)
    made = made.model_copy(update={"ray": RaySettings(token=TOKEN)})
    log_exchanges(made, range(560))
    ask(made.state, Request(cycle_id="mine", route="colours"))
    return made


@pytest.mark.service
@pytest.mark.train
@pytest.mark.timeout(300)
async def test_a_cycle_is_trained_on_ray_stopped_resumed_and_registered_here(
    tmp_path: Path, tiny_base: Path, ray: str
) -> None:
    made = settings(tmp_path, ray, tiny_base)
    cycles = Cycles(made.state)

    def in_training() -> bool:
        standing = cycles.standing("mine")
        return standing is not None and standing.phase == "train" and standing.done > 0

    async with collector_that_acknowledges(made.state) as got:
        async with running(made, WORKER):
            await until(in_training, 120)
        (job,) = jobs(ray)
        assert job["status"] == "STOPPED"
        assert [s.outcome for s in cycles_of(made)] == [None]
        async with running(made, WORKER) as told:
            await until(lambda: "retrainer.cycle" in {name for name, _ in told}, 240)
    (state,) = cycles_of(made)
    assert (state.outcome, state.error) == ("registered", None)
    assert [job["status"] for job in jobs(ray)].count("SUCCEEDED") == 1
    phases = [fields["phase"] for name, fields in told if name == "retrainer.phase"]
    assert phases.index("train") < phases.index("evaluate_quantized") < phases.index("register")
    assert [h.event.version for h in got if isinstance(h, Happened)] == ["mine"]
    registry = open_registry(made.registry)
    assert [v.id for v in registry.versions("colours")] == ["mine"]
    registry.close()
    ended = entries(made.state)[-1]
    assert ended.dataset == state.phases["dataset"]["digest"]
    assert ended.dataset.startswith("sha256:")
    assert ended.offsets == (1, 561)


@pytest.mark.train
@pytest.mark.timeout(300)
async def test_what_will_be_served_is_evaluated_and_timed_at_home(tmp_path: Path, tiny_base: Path) -> None:
    """Without a cluster: the job's own command in the place of the job."""
    made = settings(tmp_path, "ray://127.0.0.1:1", tiny_base)
    cycles, request = Cycles(made.state), Request(cycle_id="mine", route="colours")
    cycles.folder("mine").mkdir(parents=True)
    away = (*WORKER, str(write_order(made, request, cycles.folder("mine"))))
    assert await ended(made, WORKER) == EXIT_ELSEWHERE
    assert await ended(made, away) == EXIT_DONE
    state = cycles.load("mine")
    assert state is not None
    assert list(state.phases)[-2:] == ["gate", "export"]
    async with collector_that_acknowledges(made.state):
        assert await ended(made, WORKER) == EXIT_DONE
    state = cycles.load("mine")
    assert state is not None
    assert state.outcome == "registered"
    assert state.phases["evaluate_quantized"]["latency"]["n"] > 0


async def test_an_order_of_another_version_is_told_and_not_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    order = tmp_path / "order.json"
    given = config(tmp_path / "s").model_dump(mode="json") | {"from_the_future": True}
    order.write_text(json.dumps({"config": given, "request": {"cycle_id": "mine", "route": "colours"}}))
    assert await ended(config(tmp_path / "s"), (*WORKER, str(order))) == EXIT_FAILED
    told = json.loads(capfd.readouterr().out)
    assert told["event"] == "worker.error"
    assert told["fields"]["error"].startswith("the cycle's order can't be read; is another version of Retort installed")
    assert told["fields"]["retryable"] is False


async def ended(made: Config, command: tuple[str, ...]) -> int:
    """Run a worker to its end; returns its exit status."""
    order = {"config": made.model_dump(mode="json"), "request": {"cycle_id": "mine", "route": "colours"}}
    worker = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE)
    assert worker.stdin
    worker.stdin.write(json.dumps(order).encode() + b"\n")
    code = await worker.wait()
    worker.stdin.close()
    return code


def jobs(ray: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = httpx.get(
        ray.replace("ray://", "http://") + "/api/jobs/", headers={"authorization": f"Bearer {TOKEN}"}
    ).json()
    return [job for job in found if job["type"] == "SUBMISSION"]


async def test_a_cluster_that_is_away_is_tried_again_and_its_order_holds_no_key(
    tmp_path: Path, tiny_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    made = settings(tmp_path, f"ray://127.0.0.1:{port}", tiny_base)
    given = made.model_dump(mode="json")
    given["upstreams"]["up"]["api_key"] = "sk-withheld"  # its own, since a judge asks it
    given["routes"]["again"] = {"teachers": ["up/m"], "capture": {"rate": 0}}
    given["routes"]["colours"]["retrain"]["gate"] = {"teacher_route": "again"}
    given["registry"] = f"sqlite:///{tmp_path}/withheld.db"
    made = Config.model_validate(given)
    folder = Cycles(made.state).folder("mine")
    folder.mkdir(parents=True)
    order = write_order(made, Request(cycle_id="mine", route="colours"), folder)
    text = order.read_text()
    assert "withheld" not in text
    assert TOKEN not in text
    assert Config.model_validate(json.loads(text)["config"]).routes["colours"] == made.routes["colours"]
    began = time.monotonic()
    async with running(made, (sys.executable, "-c", "import sys; sys.exit(76)")):
        await until(lambda: "retrainer.cycle_broke" in caplog.text, 20.0)
        await asyncio.sleep(0.1)
    assert time.monotonic() - began < 20
    broke = next(r for r in caplog.records if r.message == "retrainer.cycle_broke")
    assert f"Ray at ray://127.0.0.1:{port}" in broke.__dict__["error"]
    assert [s.outcome for s in cycles_of(made)] == [None], "it waits for its next attempt"


def test_a_cluster_has_a_host_and_a_port(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        config(tmp_path / "s", on="ray://somewhere")
    with pytest.raises(ValidationError, match="a port is at most 65535"):
        config(tmp_path / "s", on="ray://somewhere:99999")


@pytest.mark.parametrize(
    ("status", "answer", "says", "away"),
    [
        ("200 OK", b"<html>It works!</html>", "is no Jobs API of Ray", False),
        ("200 OK", b'{"jobs": []}', "is no Jobs API of Ray", False),
        ("200 OK", b"[3]", "is no Jobs API of Ray", False),
        ("401 Unauthorized", b"no", "401 Unauthorized", False),
        ("404 Not Found", b"no", "404 Not Found", False),
        ("503 Service Unavailable", b"no", "503 Service Unavailable", True),
    ],
)
async def test_another_service_at_the_address_is_told_and_ends_nothing(
    tmp_path: Path, status: str, answer: bytes, says: str, away: bool
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(answer)}\r\n\r\n"
        writer.write(head.encode() + answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(RayFailed, match=f"ray://127.0.0.1:{port}.*{says}") as found:
            await run_job(f"ray://127.0.0.1:{port}", tmp_path / "order.json", "mine", [asyncio.Event()])
    assert found.value.away is away


async def test_a_cluster_that_stays_away_fails_no_cycle(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrainer.daemon.MOST_ATTEMPTS", 2)
    (port,) = free_ports(1)
    made = settings(tmp_path, f"ray://127.0.0.1:{port}", tiny_base)
    attempts = tmp_path / "attempts"
    elsewhere = f"import sys; open({str(attempts)!r}, 'a').write('x'); sys.exit(76)"
    async with running(made, (sys.executable, "-c", elsewhere), retry=(0.01, 0.02)):
        await until(lambda: attempts.exists() and len(attempts.read_text()) > 3, 60.0)
    assert [s.outcome for s in cycles_of(made)] == [None]
