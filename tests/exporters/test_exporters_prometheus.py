"""Events become series: each one that the rooms emit, and over several processes on one page."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from exporters.prometheus import Subscriber
from exporters.prometheus.metrics import Metrics
from router import Arm, Stage

REQUEST: dict[str, Any] = {
    "route": "r",
    "arm": Arm.STUDENT,
    "version": "v1",
    "status": 200,
    "stream": True,
    "outcome": "ok",
    "seconds": 0.5,
    "ttft_seconds": 0.25,
}
ENGINE: dict[str, Any] = {
    "operation": "chat",
    "version": "v1",
    "outcome": "ok",
    "prompt_tokens": 7,
    "completion_tokens": 5,
    "queue_seconds": 0.1,
    "gaps": [0.125, 0.125],
    "batch": 3.0,
    "ttft_seconds": 0.2,
    "seconds": 0.6,
}
# Every event that the rooms emit, and lines that it must leave on the page.
EVENTS: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "gateway.request",
        REQUEST,
        [
            'retort_gateway_requests_total{arm="student",outcome="ok",route="r",status="2xx",stream="true",'
            'version="v1"} 1.0',
            'gen_ai_client_operation_duration_seconds_sum{arm="student",gen_ai_operation_name="chat",route="r",'
            'stream="true"} 0.5',
            'gen_ai_client_operation_time_to_first_chunk_seconds_sum{arm="student",gen_ai_operation_name="chat",'
            'route="r"} 0.25',
        ],
    ),
    (
        "gateway.fallback",
        {"route": "r", "arm": Arm.TEACHER, "error": "http_503"},
        ['retort_gateway_fallbacks_total{arm="teacher",error="http_5xx",route="r"} 1.0'],
    ),
    (
        "gateway.hard_stop",
        {"route": "r", "version": "v"},
        ['retort_gateway_hard_stops_total{route="r",version="v"} 1.0'],
    ),
    (
        "gateway.shadow",
        {"route": "r", "arm": Arm.STUDENT, "outcome": "dropped"},
        ['retort_gateway_shadows_total{arm="student",outcome="dropped",route="r"} 1.0'],
    ),
    (
        "gateway.capture_skipped",
        {"route": "r", "reason": "too_large"},
        ['retort_gateway_capture_skipped_total{reason="too_large",route="r"} 1.0'],
    ),
    (
        "gateway.masked",
        {"route": "r", "outcome": "ok", "seconds": 0.5},
        ['retort_gateway_masked_total{outcome="ok",route="r"} 1.0', 'retort_gateway_mask_seconds_sum{route="r"} 0.5'],
    ),
    ("collector.frames_dropped", {"count": 3}, ["retort_collector_frames_dropped_total 3.0"]),
    ("collector.spool_refused", {}, ["retort_collector_spool_refused_total 1.0"]),
    ("collector.spool_damaged", {}, ["retort_collector_spool_damaged_total 1.0"]),
    ("collector.log_failed", {}, ["retort_collector_log_failed_total 1.0"]),
    ("collector.log_full", {}, ["retort_collector_log_full_total 1.0"]),
    ("collector.subjects_failed", {}, ["retort_collector_subjects_failed_total 1.0"]),
    ("collector.capture_shed", {"route": "r"}, ['retort_collector_capture_shed_total{route="r"} 1.0']),
    ("collector.exchange", {"route": "r"}, ['retort_collector_exchanges_total{route="r"} 1.0']),
    ("collector.imported", {"route": "r"}, ['retort_collector_imported_total{route="r"} 1.0']),
    (
        "collector.quarantined",
        {"route": "r", "reason": "scrub"},
        ['retort_collector_quarantined_total{reason="scrub",route="r"} 1.0'],
    ),
    ("collector.scrubbed", {"entity": "EMAIL", "count": 2}, ['retort_collector_scrubbed_total{entity="EMAIL"} 2.0']),
    (
        "collector.language_unread",
        {"route": "r", "count": 2},
        ['retort_collector_language_unread_total{route="r"} 2.0'],
    ),
    (
        "collector.memorised",
        {"route": "r", "version": "v", "entity": "EMAIL", "count": 1},
        ['retort_student_personal_data_total{entity="EMAIL",route="r",version="v"} 1.0'],
    ),
    ("collector.scrub_seconds", {"seconds": 0.5}, ["retort_collector_scrub_seconds_sum 0.5"]),
    (
        "collector.pair",
        {"route": "r", "version": "v", "score": 0.75},
        [
            'retort_collector_pair_score_count{route="r",version="v"} 1.0',
            'retort_collector_pair_score_sum{route="r",version="v"} 0.75',
        ],
    ),
    (
        "log.lag",
        {"reader": "promoter", "route": "r", "offsets": 12},
        ['retort_log_lag_offsets{reader="promoter",route="r"} 12.0'],
    ),
    ("collector.backlog", {"bytes": 1024}, ["retort_collector_backlog_bytes 1024.0"]),
    (
        "router.stage_changed",
        {"route": "r", "version": "v", "before": Stage.SHADOW, "after": Stage.CANARY, "cause": "quality_passed"},
        [
            'retort_router_stage_changes_total{after="canary",before="shadow",cause="quality_passed",route="r"} 1.0',
            'retort_router_stage{route="r",stage="canary",version="v"} 1.0',
            'retort_router_stage{route="r",stage="shadow",version="v"} 0.0',
        ],
    ),
    (
        "router.evidence",
        {"route": "r", "version": "v", "test": "quality", "value": 12.0, "boundary": 20.0},
        [
            'retort_router_evidence{route="r",test="quality",version="v"} 12.0',
            'retort_router_evidence_boundary{route="r",test="quality",version="v"} 20.0',
        ],
    ),
    (
        "router.traffic",
        {"route": "r", "version": "v", "fraction": 0.25},
        ['retort_router_traffic_fraction{route="r",version="v"} 0.25'],
    ),
    (
        "router.selective",
        {"route": "r", "version": "v", "threshold": 0.8, "coverage": 0.6, "risk": 0.01, "risk_bound": 0.02},
        [
            'retort_router_threshold{route="r",version="v"} 0.8',
            'retort_router_coverage{route="r",version="v"} 0.6',
            'retort_router_risk{route="r",version="v"} 0.01',
            'retort_router_risk_bound{route="r",version="v"} 0.02',
        ],
    ),
    (
        "gateway.deferred",
        {"route": "r", "version": "v"},
        ['retort_gateway_deferred_total{route="r",version="v"} 1.0'],
    ),
    (
        "collector.pair_lost",
        {"route": "r", "reason": "judge_timeout"},
        ['retort_collector_pairs_lost_total{reason="judge_timeout",route="r"} 1.0'],
    ),
    (
        "collector.feedback",
        {"route": "r", "kind": "outcome", "result": "taken"},
        ['retort_collector_feedback_total{kind="outcome",result="taken",route="r"} 1.0'],
    ),
    (
        "collector.exposure_dropped",
        {"route": "r"},
        ['retort_collector_exposures_dropped_total{route="r"} 1.0'],
    ),
    ("gateway.feedback", {"outcome": "accepted"}, ['retort_gateway_feedback_total{outcome="accepted"} 1.0']),
    ("engine.loaded", {"version": "v", "seconds": 4.0}, ['retort_engine_load_seconds_sum{version="v"} 4.0']),
    (
        "engine.request",
        ENGINE,
        [
            'gen_ai_server_request_duration_seconds_sum{gen_ai_operation_name="chat",gen_ai_response_model="v1",'
            'outcome="ok"} 0.6',
            'gen_ai_server_time_to_first_token_seconds_sum{gen_ai_operation_name="chat",'
            'gen_ai_response_model="v1"} 0.2',
            'gen_ai_server_time_per_output_token_seconds_count{gen_ai_operation_name="chat",'
            'gen_ai_response_model="v1"} 1.0',
            'retort_engine_queue_seconds_sum{version="v1"} 0.1',
            'retort_engine_inter_token_seconds_count{version="v1"} 2.0',
            'retort_engine_inter_token_seconds_sum{version="v1"} 0.25',
            'retort_engine_batch_requests_sum{version="v1"} 3.0',
            'retort_engine_tokens_total{gen_ai_token_type="input",version="v1"} 7.0',
            'retort_engine_tokens_total{gen_ai_token_type="output",version="v1"} 5.0',
        ],
    ),
    (
        "engine.inside",
        {"version": "v", "waiting": 3, "decoding": 4},
        [
            'retort_engine_requests{state="decoding",version="v"} 4.0',
            'retort_engine_requests{state="waiting",version="v"} 3.0',
        ],
    ),
    (
        "retrainer.phase",
        {"route": "r", "phase": "train", "seconds": 60.0},
        ['retort_retrainer_phase_seconds_sum{phase="train",route="r"} 60.0'],
    ),
    (
        "retrainer.cycle",
        {"route": "r", "outcome": "registered"},
        ['retort_retrainer_cycles_total{outcome="registered",route="r"} 1.0'],
    ),
    (
        "retrainer.drift",
        {"route": "r", "psi": 0.3, "bound": 0.25, "at": 1800000000.5},
        [
            'retort_retrainer_drift{route="r"} 0.3',
            'retort_retrainer_drift_bound{route="r"} 0.25',
            'retort_retrainer_drift_measured_timestamp_seconds{route="r"} 1.8000000005e+09',
        ],
    ),
]


def page_after(*events: tuple[str, dict[str, Any]]) -> str:
    registry = CollectorRegistry()
    subscriber = Subscriber(Metrics(registry))
    for name, fields in events:
        subscriber(name, fields)
    return generate_latest(registry).decode()


@pytest.mark.parametrize(("name", "fields", "lines"), EVENTS, ids=[name for name, _, _ in EVENTS])
def test_an_event_changes_its_series(name: str, fields: dict[str, Any], lines: list[str]) -> None:
    before, after = page_after().splitlines(), page_after((name, fields)).splitlines()
    assert [line for line in lines if line in after and line not in before] == lines


def test_every_counted_event_is_covered_here() -> None:
    assert {name for name, _, _ in EVENTS} == Subscriber(Metrics(CollectorRegistry())).names


def test_unknown_events_and_missing_times_are_passed_over() -> None:
    refused = {**REQUEST, "version": None, "stream": False, "ttft_seconds": None}
    idle = {**ENGINE, "ttft_seconds": None, "queue_seconds": None, "prompt_tokens": None, "completion_tokens": None}
    page = page_after(("no.such_event", {"x": 1}), ("gateway.request", refused), ("engine.request", idle))
    assert 'stream="false",version=""} 1.0' in page
    assert "gen_ai_server_time_to_first_token_seconds_count" not in page
    assert "per_output_token_seconds_count" not in page_after(("engine.request", {**ENGINE, "gaps": []})), "one piece"


PROCESS = """
import sys
from exporters.prometheus import render, subscriber
count = subscriber()
request = {"route": "r", "arm": "teacher", "version": None, "status": 200, "stream": False, "outcome": "ok"}
for _ in range(int(sys.argv[1])):
    count("gateway.request", {**request, "seconds": 0.1, "ttft_seconds": None})
count("router.traffic", {"route": "r", "version": "v", "fraction": float(sys.argv[1]) / 10})
sys.stdout.write(render()[0].decode())
"""


def test_processes_of_a_state_folder_share_one_page_also_after_they_ended(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    pages = [
        subprocess.run(
            [sys.executable, "-c", PROCESS, count], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for count in ("3", "4")
    ]
    requests = [line for line in pages[1].splitlines() if line.startswith("retort_gateway_requests_total")]
    assert [line.rsplit(" ", 1)[1] for line in requests] == ["7.0"]
    # A gauge has one writer: the newest value counts, without a label for the process.
    assert 'retort_router_traffic_fraction{route="r",version="v"} 0.4' in pages[1].splitlines()


def test_importing_registers_nothing() -> None:
    code = (
        "import exporters.prometheus, prometheus_client as p; from exporters.prometheus.page import _registry;"
        "print(len(list(_registry().collect())), 'retort' in p.generate_latest().decode())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0", "False"]
