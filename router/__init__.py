"""Routing decisions, sequential evidence, and the registry of versions."""

from router.batch import batches
from router.config import Config, Prices, SpoolSettings, Upstream, json_schema
from router.config_read import complaints, parse
from router.decide import decide
from router.decision import Arm, Decision, RequestFacts, ShadowCall
from router.eligible import ineligible
from router.errors import ConfigError, Conflict, RegistryUnavailable, RouterError, UnknownVersion
from router.events import Events
from router.evidence import EventKind, Evidence, Metric, Observation, RouteEvent
from router.evidence import decode as decode_evidence
from router.evidence import encode as encode_evidence
from router.offered import offered, uses_tools
from router.policy import CapturePolicy, ConsentKeys, RoutePolicy, parse_policy
from router.policy_quality import JudgePolicy, OutcomePolicy, QualityPolicy
from router.policy_student import RetrainPolicy
from router.private import private_database, private_folder
from router.registry import Registry, Rollout, Snapshot, Stage, Transition, Version
from router.registry_sql import open_registry
from router.replay import differences, recompute, what_if
from router.rollout import fold, stages
from router.rollout_state import RouteState, initial
from router.rollout_state import decode as decode_state
from router.rollout_state import encode as encode_state
from router.rollout_status import status
from router.rollout_view import view
from router.scores import (
    Asked,
    Score,
    Similarity,
    Spec,
    answer_text,
    asked,
    is_json,
    kendall,
    mrr,
    ndcg_at_k,
    needs_similarity,
    recall_at_k,
    score,
    tool_calls,
    why_bad,
)
from router.sql import Database, Session, open_database
from router.tasks import TaskKind
from router.thinking import split as split_thinking

__all__ = [
    "Arm",
    "Asked",
    "CapturePolicy",
    "Config",
    "ConfigError",
    "Conflict",
    "ConsentKeys",
    "Database",
    "Decision",
    "EventKind",
    "Events",
    "Evidence",
    "JudgePolicy",
    "Metric",
    "Observation",
    "OutcomePolicy",
    "Prices",
    "QualityPolicy",
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
    "Session",
    "ShadowCall",
    "Similarity",
    "Snapshot",
    "Spec",
    "SpoolSettings",
    "Stage",
    "TaskKind",
    "Transition",
    "UnknownVersion",
    "Upstream",
    "Version",
    "answer_text",
    "asked",
    "batches",
    "complaints",
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
    "kendall",
    "mrr",
    "ndcg_at_k",
    "needs_similarity",
    "offered",
    "open_database",
    "open_registry",
    "parse",
    "parse_policy",
    "private_database",
    "private_folder",
    "recall_at_k",
    "recompute",
    "score",
    "split_thinking",
    "stages",
    "status",
    "tool_calls",
    "uses_tools",
    "view",
    "what_if",
    "why_bad",
]
