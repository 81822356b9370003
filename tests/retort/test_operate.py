"""An operator's command is done when the promoter has folded this very event, whatever else it folds meanwhile."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from collector import Happened, Record, Stream, open_log, socket_path
from collector.frames import ACK, PREFIX, unpack
from collector.promote import RouteFold
from retort.errors import StartError
from retort.operate import operate
from router import (
    Config,
    EventKind,
    Events,
    RouteEvent,
    Stage,
    TaskKind,
    Version,
    encode_evidence,
    open_registry,
    parse,
)

CONFIG = """
state: {state}
upstreams: {{o: {{base_url: "http://127.0.0.1:1/v1", distillation_allowed: true}}}}
engines: {{local: {{}}}}
routes: {{r: {{teachers: [o/m], student: {{}}}}}}
"""


def record(event: RouteEvent) -> tuple[Stream, Record]:
    return Stream.EVIDENCE, Record(id=event.id, key=event.route, at=event.at, value=encode_evidence(event))


def tick(number: int) -> RouteEvent:
    return RouteEvent(id=f"tick:{number}", at=float(number), route="r", kind=EventKind.TICK)


class Place:
    """A state folder with a log and a registry, and a version `v` that a promoter has heard of."""

    def __init__(self, folder: Path) -> None:
        self.config: Config = parse(CONFIG.format(state=folder), {})
        self.log = open_log(self.config.log)
        self.registry = open_registry(self.config.registry)
        self.fold = RouteFold("r", self.config.routes["r"], self.registry, self.log, Events())
        self.add("v")
        policy = {"policy": self.config.routes["r"].model_dump(mode="json")}
        started = [
            RouteEvent(id="p", at=1.0, route="r", kind=EventKind.POLICY, data=policy),
            RouteEvent(id="c", at=1.0, route="r", kind=EventKind.CANDIDATE, version="v"),
        ]
        self.log.append([record(event) for event in started])
        self.fold.advance()

    @contextmanager
    def collector(self, then: Callable[[RouteEvent], None], events: int = 1) -> Iterator[None]:
        """One that takes so many events; `then` is run with each before it is acknowledged."""
        path = socket_path(self.config.state)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of one before
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(str(path))
            server.listen(1)

            def serve() -> None:
                for _ in range(events):
                    connection, _ = server.accept()
                    with connection, connection.makefile("rb") as reader:
                        head, _ = PREFIX.unpack(reader.read(PREFIX.size))
                        envelope = unpack(reader.read(head))
                        assert isinstance(envelope.header, Happened)
                        then(envelope.header.event)
                        connection.sendall(ACK.pack(envelope.sequence))

            thread = threading.Thread(target=serve)
            thread.start()
            yield
            thread.join()

    def add(self, version: str) -> None:
        """To the registry alone, as the retrainer does just before it tells the rollout."""
        self.registry.add_version(
            Version(id=version, route="r", kind=TaskKind.CHAT, base="b", engine="local", artefact="a", created_at=2.0)
        )

    def take(self, event: RouteEvent) -> None:
        """What collector and promoter do with an event."""
        self.log.append([record(event)])
        self.fold.advance()

    def act(self, action: str, version: str | None) -> int:
        return operate(self.config, action, "r", version=version, who="ann", why="because", wait=5.0)

    def promote(self, *, wait: float = 0.3) -> int:
        return operate(self.config, "promote", "r", version="v", who="ann", why="because", wait=wait)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.log.close()
    place.registry.close()


def test_records_that_are_folded_while_the_event_waits_are_not_taken_for_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def traffic_first(event: RouteEvent) -> None:
        place.log.append([record(tick(n)) for n in range(1200)])
        place.fold.advance()
        place.log.append([record(event), record(tick(5000))])

    with place.collector(traffic_first):
        assert place.promote() == 1
    assert "recorded; the promoter has not acted" in capsys.readouterr().out


def test_a_folded_event_is_told_with_the_stage_that_it_made(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    def folded(event: RouteEvent) -> None:
        place.log.append([record(tick(n)) for n in range(1200)])
        place.log.append([record(event)])
        place.fold.advance()

    with place.collector(folded):
        assert place.promote(wait=5.0) == 0
    assert "promote r: done; v is live; live: v" in capsys.readouterr().out


def test_a_collector_of_another_log_is_told(place: Place) -> None:
    with place.collector(lambda _: None), pytest.raises(StartError, match="not into this configuration's log"):
        place.promote()


def test_a_candidate_that_waits_is_rejected_by_name(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StartError, match="no version in service"):
        place.act("rollback", None)
    with place.collector(place.take):
        assert place.act("rollback", "v") == 0
    assert "rollback r: done; v is rejected; live: none" in capsys.readouterr().out
    place.take(RouteEvent(id="ready", at=2.0, route="r", kind=EventKind.READY, version="v"))
    assert place.registry.checkpoint("r")[0].challenger is None
    with pytest.raises(StartError, match="'v' is rejected, neither in service nor a candidate; there is"):
        place.act("rollback", "v")


def test_a_version_that_is_not_in_service_is_not_rolled_back(place: Place) -> None:
    with place.collector(place.take):
        assert place.act("promote", "v") == 0
    place.add("w")
    place.take(RouteEvent(id="w", at=2.0, route="r", kind=EventKind.CANDIDATE, version="w"))
    with place.collector(place.take):
        assert place.act("promote", "w") == 0
    with pytest.raises(StartError, match=r"'v' is retired, .*\(live: w, challenger: none\)"):
        place.act("rollback", "v")
    assert place.registry.checkpoint("r")[0].live == "w"


def test_a_live_version_and_a_challenger_are_rolled_back_by_name(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.take(RouteEvent(id="ready", at=2.0, route="r", kind=EventKind.READY, version="v"))
    assert place.registry.checkpoint("r")[0].challenger == "v"
    with place.collector(place.take):
        assert place.act("rollback", "v") == 0
    with place.collector(place.take):
        assert place.act("promote", "v") == 0
    with place.collector(place.take):
        assert place.act("rollback", "v") == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.partition("; ")[2] for line in told] == [
        "v is rejected; live: none (the teacher answers)",
        "v is live; live: v",
        "v is rolled_back; live: none (the teacher answers)",
    ]


@pytest.mark.parametrize("action", ["promote", "pin"])
def test_a_version_that_the_rollout_has_not_heard_of_is_not_said_to_be_moved(place: Place, action: str) -> None:
    place.add("w")
    with pytest.raises(StartError, match="has not heard of version 'w' yet"):
        place.act(action, "w")
    place.take(RouteEvent(id="w", at=2.0, route="r", kind=EventKind.CANDIDATE, version="w"))
    with place.collector(place.take):
        assert place.act(action, "w") == 0


def test_a_rollback_that_names_no_version_takes_back_all_that_answers(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with place.collector(place.take):
        assert place.act("promote", "v") == 0
    place.add("w")
    for kind in (EventKind.CANDIDATE, EventKind.READY):
        data = {"engine": "local", "url": "u"} if kind is EventKind.READY else {}
        place.take(RouteEvent(id=f"w:{kind}", at=3.0, route="r", kind=kind, version="w", data=data))
    state = place.fold._state
    assert state is not None
    state = replace(state, versions={**state.versions, "w": replace(state.versions["w"], stage=Stage.CANARY)})
    place.fold._state = state  # as evidence would have made it
    place.take(tick(9))
    assert place.registry.checkpoint("r")[0].fraction > 0.0
    with place.collector(place.take, events=2):
        assert place.act("rollback", None) == 0
    assert "v is rolled_back; w is rolled_back; live: none (the teacher answers)" in capsys.readouterr().out
