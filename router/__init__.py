"""Routing decisions, sequential evidence, and the registry of versions."""

from router.config import Config, Prices, Upstream, json_schema, parse
from router.decide import decide
from router.decision import Arm, Decision, RequestFacts, ShadowCall
from router.eligible import ineligible
from router.errors import ConfigError, Conflict, RegistryUnavailable, RouterError, UnknownVersion
from router.events import Events
from router.evidence import EventKind, Evidence, Metric, Observation, RouteEvent
from router.evidence import decode as decode_evidence
from router.evidence import encode as encode_evidence
from router.policy import CapturePolicy, RetrainPolicy, RoutePolicy
from router.registry import Registry, Rollout, Snapshot, Stage, Transition, Version
from router.registry_sqlite import open_registry
from router.tasks import TaskKind

__all__ = [
    "Arm",
    "CapturePolicy",
    "Config",
    "ConfigError",
    "Conflict",
    "Decision",
    "EventKind",
    "Events",
    "Evidence",
    "Metric",
    "Observation",
    "Prices",
    "Registry",
    "RegistryUnavailable",
    "RequestFacts",
    "RetrainPolicy",
    "Rollout",
    "RouteEvent",
    "RoutePolicy",
    "RouterError",
    "ShadowCall",
    "Snapshot",
    "Stage",
    "TaskKind",
    "Transition",
    "UnknownVersion",
    "Upstream",
    "Version",
    "decide",
    "decode_evidence",
    "encode_evidence",
    "ineligible",
    "json_schema",
    "open_registry",
    "parse",
]
