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
from router.replay import differences, recompute
from router.rollout import current_fraction, fold, parse_policy, stages
from router.rollout_state import RouteState, initial, view
from router.rollout_state import decode as decode_state
from router.rollout_state import encode as encode_state
from router.rollout_status import status
from router.scores import Score, answer_text, is_json, score
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
    "RouteState",
    "RouterError",
    "Score",
    "ShadowCall",
    "Snapshot",
    "Stage",
    "TaskKind",
    "Transition",
    "UnknownVersion",
    "Upstream",
    "Version",
    "answer_text",
    "current_fraction",
    "decide",
    "decode_evidence",
    "decode_state",
    "differences",
    "encode_evidence",
    "encode_state",
    "fold",
    "ineligible",
    "initial",
    "is_json",
    "json_schema",
    "open_registry",
    "parse",
    "parse_policy",
    "recompute",
    "score",
    "stages",
    "status",
    "view",
]
