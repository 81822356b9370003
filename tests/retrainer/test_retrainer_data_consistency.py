"""The teacher is asked again, over HTTP, where the gateway would listen."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from pydantic import ValidationError
from retrainer_fakes import CountedLog, fill, interaction

from collector import Interactions, SubjectKeys
from retrainer.data.configured import options
from retrainer.data.dataset import Dataset, build
from retrainer.progress import silent
from router.config import Config


class Gateway(ThreadingHTTPServer):
    """Gives the right answer to every third question, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.consent: set[str | None] = set()
        self.busy = self.most_busy = 0
        self.status = 200
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        gateway: Gateway = self.server  # type: ignore[assignment]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with gateway.lock:
            gateway.asked.append(body)
            gateway.consent.add(self.headers["x-retort-consent"])
            gateway.busy += 1
            gateway.most_busy = max(gateway.most_busy, gateway.busy)
        time.sleep(0.01)
        question = body["messages"][-1]["content"]
        right = int(question.split(":")[0]) % 3 == 0
        text = tiny_model.answer(question) if right else "something else"
        said = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
        with gateway.lock:
            gateway.busy -= 1
        self.send_response(gateway.status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def config(state: Path, port: int, *, rate: float = 0.0, **consistency: Any) -> Config:
    asking = {"route": "again", "share": 0.5, "concurrency": 3, **consistency}
    return Config.model_validate(
        {
            "state": str(state),
            "listen": f"127.0.0.1:{port}",
            "upstreams": {"up": {"base_url": "http://127.0.0.1:1/v1", "api_key": "k", "distillation_allowed": True}},
            "engines": {"local": {}},
            "routes": {
                "colours": {"teachers": ["up/m"], "student": {}, "retrain": {"data": {"consistency": asking}}},
                "again": {"teachers": ["up/m"], "capture": {"rate": rate}},
            },
        }
    )


def made(config: Config, log: CountedLog, keys: SubjectKeys, work: Path) -> Dataset:
    told: list[tuple[str, int, int]] = []
    how = options(config, "colours", config.routes["colours"], work, lambda *at: told.append(at[:3]))
    assert how.teachers == config.routes["colours"].teachers
    found = build(Interactions(log, keys), "colours", max_examples=1000, options=how)
    assert {phase for phase, _, _ in told} == {"dataset", "consistency"}
    assert all(done <= total for _, done, total in told)
    return found


def test_what_a_cycle_is_told_to_judge_by_takes_the_place_of_the_routes(tmp_path: Path) -> None:
    settings = config(tmp_path, 1)
    policy = settings.routes["colours"]
    named = policy.model_copy(update={"retrain": policy.retrain.model_copy(update={"held_out": "theirs.jsonl"})})
    found = [
        options(settings, "colours", some, tmp_path, silent, held_out=given).held_out
        for some, given in ((policy, None), (named, None), (named, "mine.jsonl"))
    ]
    assert found == [None, Path("theirs.jsonl"), Path("mine.jsonl")]


def test_what_the_teacher_contradicts_is_dropped_and_its_agreement_told(
    gateway: Gateway, log: CountedLog, keys: SubjectKeys, tmp_path: Path
) -> None:
    records = [interaction(n) for n in range(200)]
    shape = {"response_format": {"type": "json_object"}}
    records[0] = interaction(0, request={**records[0].request, **shape})
    fill(log, records)
    settings = config(tmp_path / "s", gateway.server_port)
    first = made(settings, log, keys, tmp_path / "w1")
    said = first.manifest.consistency
    assert said is not None
    assert 60 < said["asked"] == said["compared"] == len(gateway.asked) < 130
    assert said["agreement"] == pytest.approx(1 / 3, abs=0.1)
    whole = build(Interactions(log, keys), "colours", max_examples=1000)
    assert list(first.held_out) == list(whole.held_out), "what measures stays as production is"
    assert said["contradicted"] == first.manifest.dropped["inconsistent"].count > 0
    dropped = {s["id"] for s in first.manifest.dropped["inconsistent"].samples}
    assert all(int(name[1:]) % 3 for name in dropped)
    assert 2 <= gateway.most_busy <= 3
    assert gateway.consent == {"no"}
    assert {body["model"] for body in gateway.asked} == {"again"}
    shaped = [b for b in gateway.asked if b["messages"] == tiny_model.messages(0)]
    assert all(b["response_format"] == {"type": "json_object"} for b in shaped)
    # Another cycle pays for what is new alone.
    gateway.asked.clear()
    assert made(settings, log, keys, tmp_path / "w2").manifest.digest == first.manifest.digest
    assert gateway.asked == []
    fill(log, [interaction(n) for n in range(200, 220)])
    made(settings, log, keys, tmp_path / "w3")
    assert 0 < len(gateway.asked) <= 20


def test_or_it_weighs_less(gateway: Gateway, log: CountedLog, keys: SubjectKeys, tmp_path: Path) -> None:
    fill(log, [interaction(n) for n in range(200)])
    settings = config(tmp_path / "s", gateway.server_port, then="weigh", most=40)
    found = made(settings, log, keys, tmp_path / "w")
    assert len(gateway.asked) == 40
    assert "inconsistent" not in found.manifest.dropped
    weights = sorted({e.weight for e in found.train})
    assert len(weights) == 2
    assert weights[0] == pytest.approx(0.1 * weights[1], rel=1e-4)


def test_a_gateway_that_fails_costs_no_example_and_is_soon_left_alone(
    gateway: Gateway, log: CountedLog, keys: SubjectKeys, tmp_path: Path
) -> None:
    fill(log, [interaction(n) for n in range(200)])
    gateway.status = 503
    found = made(config(tmp_path / "s", gateway.server_port), log, keys, tmp_path / "w")
    said = found.manifest.consistency
    assert said is not None
    assert said["agreement"] is None
    assert 20 <= said["failed"]["http_5xx"] == len(gateway.asked) <= 23
    assert sum(said["failed"].values()) == said["asked"]
    assert "inconsistent" not in found.manifest.dropped


def test_the_teacher_is_asked_again_on_a_route_that_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"retrain\.data\.consistency\.route: 'again' must be a route without a"):
        config(tmp_path, 8080, rate=1.0)
