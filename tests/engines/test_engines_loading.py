"""What comes of a load whose probes are not answered, or that nobody waits for."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from engine_fakes import until, version
from vllm_students import GOLDEN, publish

from exporters.models import Manifest, Store
from gateway.engines import loading
from gateway.engines.errors import DecodeFailed, WorkerGone
from gateway.engines.loading import Loader
from gateway.engines.protocol import Event, Started


class Beside:
    pid = None

    def __init__(self, place: object) -> None:
        self.place, self.gone = place, asyncio.Event()
        self.ended = ""

    async def generate(self, messages: object, options: object) -> AsyncGenerator[Event, None]:
        await asyncio.sleep(60)
        yield Started(id=1, prompt_tokens=1, queue_seconds=None)

    def kill(self) -> None:
        self.ended += "killed "

    async def close(self) -> None:
        self.ended += "closed"


class Ending(Beside):
    """It breaks off at its first request; its end is seen a moment later, where there is an `ending`."""

    def __init__(self, ending: str) -> None:
        super().__init__(object())
        self.ending = ending

    async def generate(self, messages: object, options: object) -> AsyncGenerator[Event, None]:
        if self.ending:
            asyncio.get_running_loop().call_later(0.01, self.gone.set)
        raise WorkerGone
        yield Started(id=1, prompt_tokens=1, queue_seconds=None)


class Starting:
    def __init__(self, child: Beside) -> None:
        self.child = child

    async def start(self, folder: Path, manifest: Manifest) -> Beside:
        return self.child


@pytest.mark.parametrize(
    ("beside", "ended", "kind"), [(True, "closed", WorkerGone), (False, "killed closed", DecodeFailed)]
)
async def test_a_server_that_is_late_with_one_versions_probes_is_not_ended_under_the_others(
    tmp_path: Path, beside: bool, ended: str, kind: type[Exception]
) -> None:
    store, source, server = Store(tmp_path / "artefacts"), tmp_path / "source", object()
    source.mkdir()
    (source / "config.json").write_text("{}")
    publish(store, "new", source, [{"messages": GOLDEN, "answer": "new", "max_tokens": 8}])
    child, other = Beside(server), Beside(server if beside else object())
    loader = Loader(store, Starting(child), memory_gb=None, seconds=0.05)  # type: ignore[arg-type]
    with pytest.raises(kind, match="the probes took longer"):
        await loader.load(version("new"), lambda: [other], lambda _: None)  # type: ignore[list-item]
    assert child.ended == ended
    assert not other.ended


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("signal 11", DecodeFailed),
        ("signal 9", WorkerGone),
        ("status 1, see the log", DecodeFailed),
        ("status 139, see the log", DecodeFailed),
        ("status 137, see the log", WorkerGone),
        ("status 1: ValueError: No available memory for the cache blocks; see the log", WorkerGone),
        ("it was no longer well", WorkerGone),
        ("", WorkerGone),
    ],
)
async def test_a_worker_that_crashes_at_the_probes_is_to_blame_and_one_that_ends_otherwise_is_not(
    tmp_path: Path, ending: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "END_SECONDS", 0.05)
    store, source = Store(tmp_path / "artefacts"), tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    publish(store, "new", source, [{"messages": GOLDEN, "answer": "new", "max_tokens": 8}])
    child = Ending(ending)
    loader = Loader(store, Starting(child), memory_gb=None, seconds=5.0)  # type: ignore[arg-type]
    with pytest.raises(kind, match=f"it was probed, and {ending or 'The process that serves'}"):
        await loader.load(version("new"), list, lambda _: None)
    assert child.ended == "closed"


async def test_a_load_that_is_given_up_ends_its_fetch() -> None:
    class Away:
        def path(self, artefact: str) -> Path:
            return Path("/nowhere")

        def verify(self, artefact: str, unwanted: Callable[[], bool]) -> None:
            began.set()
            while not unwanted():
                time.sleep(0.01)
            ended.set()

    began, ended = threading.Event(), threading.Event()
    loader = Loader(Away(), Starting(Beside(object())), memory_gb=None, seconds=5.0)  # type: ignore[arg-type]
    load = asyncio.create_task(loader.load(version("new"), list, lambda _: None))
    await until(began.is_set)
    load.cancel()
    await until(ended.is_set)
    with pytest.raises(asyncio.CancelledError):
        await load
