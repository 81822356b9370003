"""`retort.yaml` as a frozen value. Pure: the text and the environment are passed in."""

import re
from collections import Counter
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from router.config_engines import EngineSettings
from router.config_kafka import MOST_ROUTE_BYTES, KafkaSettings, kafka_address
from router.policy import RoutePolicy
from router.policy_cycle import RaySettings
from router.policy_fields import Seconds, Strict
from router.sql import why_bad_url


class Prices(Strict):
    """USD per million tokens."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)


class Upstream(Strict):
    """One provider. `api_key: passthrough` forwards the client's own key, which is never stored.

    `stand_in`: the address of a sample teacher on this machine, taken instead while the key's variable is not set.
    """

    protocol: Literal["openai"] = "openai"
    base_url: str
    api_key: str = "passthrough"
    distillation_allowed: bool = False
    reasoning_distillation_allowed: bool = False
    stand_in: str | None = None
    prices: dict[str, Prices] = {}
    connect_timeout: Seconds = 5.0
    timeout: Seconds = 120.0

    @field_validator("base_url", "stand_in")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError(f"must start with http:// or https://, got {value!r}")
        return value and value.rstrip("/")

    @model_validator(mode="before")
    @classmethod
    def _without_a_key(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("stand_in") and not data.get("api_key"):
            if "api_key" not in data:
                raise ValueError("stand_in needs api_key: ${VARIABLE}; it is taken while that variable is not set")
            return {**data, "base_url": data["stand_in"], "api_key": "sample"}
        return data

    @property
    def stands_in(self) -> bool:
        """Whether the sample teacher answers in the provider's place."""
        return self.base_url == self.stand_in


def _key_of_32_bytes(value: str, variable: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise ValueError(f"must be 64 hexadecimal digits (`openssl rand -hex 32` makes them), best as ${{{variable}}}")
    return value


class SigningSettings(Strict):
    """Who may make artefacts. `secret`: shared by who makes and who loads (HMAC-SHA256), 64 hexadecimal digits; or
    files of an Ed25519 pair: `private_key` where they are made, `public_key` where they are loaded."""

    secret: str = Field("", repr=False)
    private_key: str | None = None
    public_key: str | None = None

    @field_validator("secret")
    @classmethod
    def _hex(cls, value: str) -> str:
        return value and _key_of_32_bytes(value, "RETORT_ARTEFACT_KEY")

    @model_validator(mode="after")
    def _one_kind(self) -> "SigningSettings":
        if self.secret and (self.private_key or self.public_key):
            raise ValueError("signing takes a secret or a pair of keys, not both")
        return self


class ArtefactPolicy(Strict):
    """`max_gb`: of one artefact. `keep`: how many of a route's versions that have ended are kept, the newest first;
    None: all."""

    max_gb: float = Field(64.0, gt=0)
    keep: int | None = Field(5, ge=0)
    signing: SigningSettings = SigningSettings()


class SpoolSettings(Strict):
    """Frames on disk, encrypted, until the collector has them: of each gateway process at most `max_mb`."""

    key: str = Field(repr=False)
    max_mb: int = Field(1024, ge=512, description="a single exchange may take 256")

    @field_validator("key")
    @classmethod
    def _hex(cls, value: str) -> str:
        return _key_of_32_bytes(value, "RETORT_SPOOL_KEY")


class Config(Strict):
    """The whole file."""

    state: str = ".retort"
    log: str = ""
    kafka: KafkaSettings = KafkaSettings()
    registry: str = ""
    subjects: str = ""
    artefacts: str = ""
    artefact_policy: ArtefactPolicy = ArtefactPolicy()
    listen: str = "127.0.0.1:8080"
    workers: int = Field(1, gt=0)
    scrub_workers: int = Field(1, gt=0)
    scrub_backlog_mb: int = Field(16, gt=0)
    mask_workers: int = Field(1, gt=0, description="only where a route's capture.mask_teachers asks for masking")
    spool: SpoolSettings | None = None
    ray: RaySettings = RaySettings()
    upstreams: dict[str, Upstream]
    engines: dict[str, EngineSettings] = {}
    routes: dict[str, RoutePolicy]

    @model_validator(mode="before")
    @classmethod
    def _under_state(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        state = str(data.get("state", ".retort")).rstrip("/")
        defaults = {
            "log": f"sqlite:///{state}/log.db",
            "registry": f"sqlite:///{state}/registry.db",
            "subjects": f"sqlite:///{state}/subjects.db",
            "artefacts": f"{state}/artefacts",
        }
        return {**defaults, **data}

    @field_validator("log")
    @classmethod
    def _log(cls, value: str) -> str:
        if value.startswith("kafka://"):
            kafka_address(value)
        elif not value.startswith(("sqlite:///", "memory://")):
            raise ValueError(f"{value!r}: write sqlite:///PATH or kafka://HOST:PORT/PREFIX")
        return value

    @field_validator("registry", "subjects")
    @classmethod
    def _database(cls, value: str) -> str:
        if wrong := why_bad_url(value):
            raise ValueError(wrong)
        return value

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{value!r}: write HOST:PORT, for example 127.0.0.1:8080")
        if host not in ("127.0.0.1", "localhost", "[::1]"):
            raise ValueError(
                f"{host!r} is not loopback; put a proxy that checks keys in front, and listen on 127.0.0.1"
            )
        return value

    @model_validator(mode="after")
    def _topics(self) -> "Config":
        if not self.log.startswith("kafka://"):
            if self.kafka != KafkaSettings():
                raise ValueError("kafka: is for a log at kafka://HOST:PORT/PREFIX; set log, or leave this out")
            return self
        for route in self.routes:
            if len(route.encode()) > MOST_ROUTE_BYTES:
                raise ValueError(f"routes.{route}: with the log in Kafka a name has at most {MOST_ROUTE_BYTES} bytes")
        return self

    def keeps_reasoning(self, upstream: str | None) -> bool:
        """Whether what UPSTREAM/MODEL thinks may be kept. A student (None) is the operator's own."""
        found = self.upstreams.get(upstream.partition("/")[0]) if upstream is not None else None
        return upstream is None or (found is not None and found.reasoning_distillation_allowed)

    def may_teach(self, upstream: str) -> bool:
        """Whether a student may learn from UPSTREAM/MODEL, by the terms of its provider."""
        found = self.upstreams.get(upstream.partition("/")[0])
        return found is not None and found.distillation_allowed

    def origin(self, teacher: str) -> tuple[str, str]:
        """Where UPSTREAM/MODEL answers, and as which model: the same under another upstream's name and key."""
        name, _, model = teacher.partition("/")
        found = self.upstreams.get(name)
        return (name if found is None else found.base_url, model)

    @model_validator(mode="after")
    def _names(self) -> "Config":
        claimed: dict[str, str] = {}
        for route, policy in self.routes.items():
            for teacher in policy.teachers:
                upstream, _, model = teacher.partition("/")
                if upstream not in self.upstreams or not model:
                    known = ", ".join(sorted(self.upstreams)) or "none"
                    raise ValueError(
                        f"routes.{route}.teachers: {teacher!r} must be UPSTREAM/MODEL with an upstream of: {known}"
                    )
                if policy.student and not self.upstreams[upstream].distillation_allowed:
                    raise ValueError(
                        f"routes.{route}: a student learns from {teacher!r}, but upstreams.{upstream}."
                        "distillation_allowed is not true; read the provider's terms, then set it"
                    )
                thinks = policy.student and policy.retrain.data.reasoning == "keep"
                if thinks and not self.upstreams[upstream].reasoning_distillation_allowed:
                    raise ValueError(
                        f"routes.{route}.retrain.data.reasoning: keep learns what {teacher!r} thinks, but upstreams."
                        f"{upstream}.reasoning_distillation_allowed is not true; read the provider's terms, then set it"
                    )
            if policy.student and policy.student.engine not in self.engines:
                known = ", ".join(sorted(self.engines)) or "none"
                raise ValueError(f"routes.{route}.student.engine: {policy.student.engine!r} is not one of: {known}")
            if policy.student:
                engine = self.engines[policy.student.engine]
                adapters = engine.vllm.adapters_on is not None
                if wrong := policy.retrain.unserved(policy.student, engine.runtime, adapters=adapters):
                    raise ValueError(f"routes.{route}: {wrong}")
            if policy.quality.judge is not None:
                _check_judge(self, route, "quality.judge.route", policy.quality.judge.route)
            if policy.retrain.data.consistency is not None:
                _check_teacher(self, route, "retrain.data.consistency.route", policy.retrain.data.consistency.route)
            if policy.retrain.gate.teacher_route is not None:
                _check_teacher(self, route, "retrain.gate.teacher_route", policy.retrain.gate.teacher_route)
            for name in (route, *policy.claims):
                if claimed.get(name) == route:
                    raise ValueError(f"routes.{route}.claims: {name!r} is the route's already; leave it out")
                if name in claimed:
                    raise ValueError(f"routes.{route}: {name!r} already belongs to route {claimed[name]!r}")
                claimed[name] = route
        for name, count in Counter(policy.student.engine for policy in self.routes.values() if policy.student).items():
            self.engines[name] = self.engines[name].serving(count, f"engines.{name}")
        return self


def _check_teacher(config: Config, route: str, key: str, again: str) -> None:
    """Another model's answers would say nothing of whether the teacher would give its own again."""
    _check_judge(config, route, key, again)
    own = config.routes[route].teachers
    known = {config.origin(teacher) for teacher in own}
    others = [teacher for teacher in config.routes[again].teachers if config.origin(teacher) not in known]
    if others:
        raise ValueError(
            f"routes.{route}.{key}: {again!r} asks {', '.join(map(repr, others))}, and the teacher that is asked again "
            f"must be the route's own: {', '.join(map(repr, own))}"
        )


def _check_judge(config: Config, route: str, key: str, judge: str) -> None:
    """What a judge is asked holds a user's request, and answers to it; a teacher that is asked again gets one. They
    must be kept nowhere, and judged by nobody. Who asks has no client's key to pass on."""
    found = config.routes.get(judge)
    for teacher in found.teachers if found else ():
        upstream = config.upstreams.get(teacher.partition("/")[0])
        if upstream and upstream.api_key == "passthrough":
            raise ValueError(
                f"routes.{route}.{key}: {judge!r} asks {teacher!r} with the client's key (passthrough), "
                "and what Retort itself asks has no client; give that upstream an api_key of its own"
            )
    if found is None or found.student is not None or found.capture.rate > 0.0:
        raise ValueError(
            f"routes.{route}.{key}: {judge!r} must be a route without a student and with "
            "capture: {rate: 0}, or what it is asked would be captured and learnt from"
        )
    if config.routes[route].capture.mask_teachers and not found.capture.mask_teachers:
        raise ValueError(
            f"routes.{route}.{key}: {judge!r} must have capture.mask_teachers: true as well, or it "
            "would be sent what this route masks"
        )


def json_schema() -> dict[str, Any]:
    """The file's JSON Schema, for editors."""
    return Config.model_json_schema()
