"""The supervisor: what it starts, what one process's end costs the others, and what is forgotten with a process."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from prometheus_client.multiprocess import mark_process_dead

from collector import Stream, decode_interaction, open_log
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports
from retort.supervisor import Program, Supervisor, programs
from router import parse

STEADY, HOPELESS, BROKEN = Program("steady", ()), Program("hopeless", ()), Program("broken", ())
CODE = {"steady": "import time; time.sleep(60)", "hopeless": "raise SystemExit(78)", "broken": "raise SystemExit(1)"}


async def begin(program: Program) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", CODE[program.name])


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        await asyncio.sleep(0.02)


async def test_while_retort_starts_a_wrong_set_up_ends_all() -> None:
    supervisor = Supervisor([STEADY, HOPELESS], begin=begin)
    async with running(supervisor) as stop:
        await asyncio.wait_for(stop.wait(), 20)
    assert supervisor.failed == "hopeless"


async def test_what_turns_out_hopeless_during_a_stop_did_not_cause_it() -> None:
    begun: dict[str, asyncio.subprocess.Process] = {}
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); input('ready\\n'); raise SystemExit(78)"
    pipe = asyncio.subprocess.PIPE

    async def begin_waiting(program: Program) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe)
        assert process.stdout
        await process.stdout.readline()
        begun[program.name] = process
        return process

    supervisor = Supervisor([HOPELESS, STEADY], begin=begin_waiting)
    async with running(supervisor) as stop:
        await until(lambda: len(begun) == 2)
        stop.set()
        for name in ("hopeless", "steady"):  # the first one's turn has not come when it ends
            await begun[name].communicate(b"\n")
    assert supervisor.failed is None


async def test_once_ready_a_hopeless_process_is_named_and_waits_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor = Supervisor([STEADY, HOPELESS], begin=begin)
    supervisor.ready = True
    with caplog.at_level(logging.WARNING, "retort.supervisor"):
        async with running(supervisor) as stop:
            await until(lambda: caplog.records)
            await asyncio.sleep(0.6)
            assert not stop.is_set()
            (told,) = caplog.records
    assert (told.levelname, vars(told)["program"], vars(told)["status"]) == ("ERROR", "hopeless", 78)
    assert vars(told)["again_in"] == 10.0
    assert supervisor.failed is None


async def test_what_ends_is_told_and_started_again_soon() -> None:
    ended: list[int] = []
    async with running(Supervisor([BROKEN, STEADY], begin=begin, on_end=ended.append)):
        await until(lambda: len(ended) == 2)
    assert len(set(ended)) == len(ended)
    for pid in ended:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_what_can_not_be_started_now_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[str] = []

    async def scarce(program: Program) -> asyncio.subprocess.Process:
        tries.append(program.name)
        if len(tries) == 1:
            raise OSError("Resource temporarily unavailable")
        return await begin(program)

    with caplog.at_level(logging.ERROR, "retort.supervisor"):
        async with running(Supervisor([STEADY], begin=scarce)):
            await until(lambda: len(tries) == 2)
    (told,) = caplog.records
    assert (told.message, vars(told)["program"]) == ("process.not_started", "steady")


async def test_a_stop_keeps_what_ends_last_until_its_turn_has_come() -> None:
    """The collector died just before: it is there again for what the gateway, which takes its time, still sends."""
    last, first = Program("last", ()), Program("first", ())
    begun: dict[str, list[asyncio.subprocess.Process]] = {"last": [], "first": []}
    slow = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(3), exit())); time.sleep(60)"

    async def begin_either(program: Program) -> asyncio.subprocess.Process:
        code = slow if program is first else CODE["steady"]
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
        begun[program.name].append(process)
        return process

    async with running(Supervisor([last, first], begin=begin_either)) as stop:
        await until(lambda: begun["last"] and begun["first"])
        await asyncio.sleep(0.5)  # the handler is there
        stop.set()
        begun["last"][0].kill()
        await until(lambda: len(begun["last"]) == 2)
        assert begun["first"][0].returncode is None
    assert begun["last"][1].returncode == -signal.SIGTERM
    assert len(begun["first"]) == 1


def test_each_stand_in_address_has_one_sample_teacher() -> None:
    upstream = "{{base_url: https://x.example/v1, api_key: '{key}', stand_in: 'http://127.0.0.1:{port}/v1'}}"
    places = {"a": ("", 8090), "b": ("", 8091), "c": ("", 8090), "d": ("sk-1", 8092)}
    upstreams = ", ".join(f"{name}: {upstream.format(key=key, port=port)}" for name, (key, port) in places.items())
    config = parse(f"upstreams: {{{upstreams}}}\nroutes: {{r: {{teachers: [a/m, b/m, c/m, d/m]}}}}\n", {})
    found = [p.arguments for p in programs(config, "f", host="h", port=1) if p.arguments[0] == "sample-teacher"]
    assert found == [("sample-teacher", "--port", "8090"), ("sample-teacher", "--port", "8091")]


COUNT = """
from exporters.prometheus import subscriber
count = subscriber()
count("collector.backlog", {"bytes": 7})
count("collector.exchange", {"route": "r"})
count("router.stage_changed", {"route": "r", "version": "v", "before": "shadow", "after": "live", "cause": "c"})
import os
print(os.getpid())
"""
PAGE = "from exporters.prometheus import render\nprint(render()[0].decode())"


def counted(folder: Path, code: str) -> str:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_an_ended_process_leaves_its_counts_and_a_versions_stage_but_no_reading(tmp_path: Path) -> None:
    pid = int(counted(tmp_path, COUNT))
    assert "retort_collector_backlog_bytes 7.0" in counted(tmp_path, PAGE)
    mark_process_dead(pid, str(tmp_path))
    page = counted(tmp_path, PAGE)
    assert "retort_collector_backlog_bytes" not in page
    assert 'retort_collector_exchanges_total{route="r"} 1.0' in page
    assert 'retort_router_stage{route="r",stage="live",version="v"} 1.0' in page


CONFIG = """
state: {state}
listen: 127.0.0.1:{gateway}
upstreams: {{u: {{base_url: "http://127.0.0.1:1/v1", distillation_allowed: true}}}}
engines: {{local: {{listen: "127.0.0.1:{engine}"}}}}
routes: {{r: {{teachers: [u/m]}}}}
"""


def child(parent: int, word: str) -> int:
    """The process of the supervisor that has this word in its command."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent and word.encode() in words:
                return int(entry.name)
    return 0


@pytest.mark.e2e
async def test_up_counts_from_nothing_and_answers_on_when_a_room_can_not_run_any_more(tmp_path: Path) -> None:
    """The engine finds its port taken by another, after it was killed."""
    folder = tmp_path / "state" / "run" / "metrics"
    folder.mkdir(parents=True)
    counted(folder, COUNT)
    gateway, engine = free_ports(2)
    file, log = tmp_path / "retort.yaml", tmp_path / "retort.log"
    file.write_text(CONFIG.format(state=tmp_path / "state", gateway=gateway, engine=engine))
    retort = RetortProcess(file, f"http://127.0.0.1:{gateway}", log)
    await retort.start()
    try:
        await until(lambda: "Retort is ready" in log.read_text() and "engine.listening" in log.read_text())
        killed = child(retort.pid, "engine")
        before = [path.name for path in folder.glob(f"gauge_live*_{killed}.db")]
        os.kill(killed, signal.SIGKILL)
        with _taken(engine):
            await until(lambda: "status=78" in log.read_text())
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway}") as client:
                assert (await client.get("/readyz")).status_code == 200
                assert "retort_collector_exchanges" not in (await client.get("/metrics")).text
        assert before
        assert not [name for name in before if (folder / name).exists()]
        (line,) = [line for line in log.read_text().splitlines() if "status=78" in line]
        assert "ERROR" in line
        assert "program='engine local'" in line
    finally:
        assert await retort.stop() == 0


@pytest.mark.e2e
async def test_a_signal_to_all_processes_at_once_loses_no_exchange(tmp_path: Path) -> None:
    """As a service manager ends a whole group."""
    asked = asyncio.Event()

    async def teach(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.sleep(2)
        message = {"role": "assistant", "content": "late"}
        return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    gateway, engine, teacher = free_ports(3)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", teach)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", teacher).start()
    file, log = tmp_path / "retort.yaml", tmp_path / "retort.log"
    text = CONFIG.format(state=tmp_path / "state", gateway=gateway, engine=engine)
    file.write_text(text.replace("127.0.0.1:1/", f"127.0.0.1:{teacher}/"))
    retort = RetortProcess(file, f"http://127.0.0.1:{gateway}", log)
    await retort.start()
    try:
        await until(lambda: "Retort is ready" in log.read_text())
        url = f"http://127.0.0.1:{gateway}/v1/chat/completions"
        body = {"model": "r", "messages": [{"role": "user", "content": "early"}]}
        async with httpx.AsyncClient(timeout=30) as client:
            answer = asyncio.create_task(client.post(url, json=body))
            await asyncio.wait_for(asked.wait(), 20)
            children = [pid for room in ("collector", "gateway") if (pid := child(retort.pid, room))]
            assert len(children) == 2
            for pid in (retort.pid, *children):
                os.kill(pid, signal.SIGTERM)
            assert (await answer).status_code == 200
    finally:
        assert await retort.stop() == 0
        await runner.cleanup()
    (kept,) = open_log(f"sqlite:///{tmp_path}/state/log.db").read(Stream.INTERACTIONS, 0, key="r")
    assert decode_interaction(kept.value).answers[0].message == {"role": "assistant", "content": "late"}


@contextlib.contextmanager
def _taken(port: int) -> Iterator[None]:
    """Listen there as soon as nobody else does."""
    for _ in range(200):
        try:
            with socket.create_server(("127.0.0.1", port)):
                yield
                return
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"{port} is never free")
