"""The demo's own settings: production's would take days, since dwell and evidence are counted in hours there."""

import socket
from pathlib import Path
from typing import Any

import msgspec
import yaml

from router import RoutePolicy

ROUTE = "community"
CAPTURED = 1500
HELD_OUT = 1000
CAPTURE_RATE = 45.0  # requests a second while the teacher alone answers
EVIDENCE_RATE = 6.0  # at most; see `evidence_rate`
# Of what the student answers alone on this machine: the gateway, the scrubbing and a training need theirs, and a
# challenger beside it is asked the same, which vLLM's slow steps have less room for.
CAPACITY_SHARE = {"onnxruntime": 0.45, "vllm": 0.3}
CAPACITY_RECORDS = 96  # held-out ones, asked of the engine itself to learn its capacity
AT_ONCE = 16  # of them
SWAPPED = 50  # answers of each version, in the hot swap
TEACHER_MS = 600.0
PRICE = {"input": 2.5, "output": 10.0}  # USD per million tokens of the teacher's
MACHINE_PRICE = 0.10  # USD an hour of a two-core machine, for the student's cost

POLICY = {
    "claims": ["gpt-4o"],
    "teachers": ["openai/gpt-4o"],
    "student": {"base": "SmolLM2-135M-Instruct", "engine": "local"},
    "quality": {"score": "json_fields", "margin": 0.07, "alpha": 0.05, "audit_rate": 0.25},
    "latency": {"slo_ms": 2000, "quantile": 0.90, "block": "1s"},
    "errors": {"promote_below": 0.01, "rollback_above": 0.02},
    "rollout": {"steps": [0.25, 0.5, 1.0], "min_dwell": "0s", "min_requests": 50},
    "retrain": {"min_new_examples": CAPTURED, "every": "0s", "learning_rate": 8e-4},
}
# vLLM's way: four bits in training, four bits in service.
# On a base in four bits one epoch is not enough: 94.4% of the teacher's answers, where the gate asks for 93% surely.
# On two cores without AVX-512 an answer of vLLM's takes about as long as the teacher's: half as long again is borne,
# and beside a challenger's server three seconds.
_OF_VLLM: dict[str, dict[str, Any]] = {
    "student": {"recipe": "qlora"},
    "latency": {"slo_ms": 3000, "margin": 0.5},
    "retrain": {"quantization": "awq", "epochs": 2},
}


def policy(engine: str) -> dict[str, Any]:
    """The route's, for an engine of this runtime."""
    more = _OF_VLLM if engine == "vllm" else {}
    return POLICY | {name: {**section, **more.get(name, {})} for name, section in POLICY.items() if name in more}  # type: ignore[dict-item]


def evidence_rate(engine: str, capacity: float) -> float:
    """Requests a second, below the engine's capacity: what it answers a second on this machine, several at once."""
    return min(EVIDENCE_RATE, CAPACITY_SHARE[engine] * capacity)


class Places(msgspec.Struct, frozen=True):
    """Where everything of one run is."""

    folder: Path
    gateway_port: int
    teacher_port: int
    engine_port: int
    proxy_port: int

    @property
    def config(self) -> Path:
        """The configuration that was written for this run."""
        return self.folder / "retort.yaml"

    @property
    def held_out(self) -> Path:
        """The records on which candidates are judged."""
        return self.folder / "held_out.jsonl"

    @property
    def few_held_out(self) -> Path:
        """A few of them, for the candidate that is bad on purpose."""
        return self.folder / "few_held_out.jsonl"

    @property
    def url(self) -> str:
        """What the app's base_url is set to."""
        return f"http://127.0.0.1:{self.gateway_port}/v1"


def prepare(folder: Path, *, log: str | None = None, engine: str = "onnxruntime") -> Places:
    """Choose free ports and write the configuration. `log`: its URL, if not a file in the folder. `engine`: its
    runtime."""
    ports = free_ports(4)
    places = Places(folder.absolute(), *ports)
    places.folder.mkdir(parents=True, exist_ok=True)
    route = policy(engine)
    route["retrain"] = {**route["retrain"], "held_out": str(places.held_out)}
    config = {
        "state": str(places.folder / "state"),
        **({"log": log} if log else {}),
        "listen": f"127.0.0.1:{places.gateway_port}",
        "upstreams": {
            "openai": {
                "base_url": "https://api.openai.com/v1",
                "api_key": "",  # the demo never asks a paid API: its faults and its load are made on purpose
                "stand_in": f"http://127.0.0.1:{places.teacher_port}/v1",
                "distillation_allowed": True,
                "prices": {"gpt-4o": PRICE},
            }
        },
        "engines": {
            "local": {
                "runtime": engine,
                "listen": f"127.0.0.1:{places.engine_port}",
                "advertise": f"http://127.0.0.1:{places.proxy_port}",
            }
        },
        "routes": {ROUTE: route},
    }
    places.config.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    return places


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def beside_defaults(engine: str) -> list[tuple[str, str, str]]:
    """(key, the demo's value, production's default) for every key of the policy that differs."""
    production = RoutePolicy(teachers=("openai/gpt-4o",)).model_dump(mode="json")
    here = RoutePolicy.model_validate(policy(engine)).model_dump(mode="json")
    return [
        (f"{section}.{key}", str(value), str(production[section][key]))
        for section in ("quality", "latency", "errors", "rollout", "retrain")
        for key, value in here[section].items()
        if value != production[section][key]
    ]
