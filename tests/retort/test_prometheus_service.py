"""A real Prometheus scrapes a running gateway; promtool finds nothing wrong with its page."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import yaml

from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports

ROOT = Path(__file__).parents[2]
BINARIES = ROOT / ".services" / "prometheus" / "usr" / "bin"

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]


@pytest.fixture
def binaries() -> Path:
    if not (BINARIES / "prometheus").exists():
        if os.environ.get("CI"):
            pytest.fail("no Prometheus: scripts/services did not run")
        pytest.skip("scripts/services fetches Prometheus")
    return BINARIES


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[int]:
    """A gateway whose teacher can't be reached: that is counted too."""
    port, nobody = free_ports(2)
    config = {
        "state": str(tmp_path / "state"),
        "listen": f"127.0.0.1:{port}",
        "upstreams": {"up": {"base_url": f"http://127.0.0.1:{nobody}/v1"}},
        "routes": {"r": {"teachers": ["up/m"]}},
    }
    file = tmp_path / "retort.yaml"
    file.write_text(yaml.safe_dump(config))
    retort = RetortProcess(file, f"http://127.0.0.1:{port}", tmp_path / "retort.log")
    await retort.start()
    yield port
    assert await retort.stop() == 0


@pytest.mark.e2e
async def test_prometheus_scrapes_what_the_gateway_counts(binaries: Path, gateway: int, tmp_path: Path) -> None:
    async with httpx.AsyncClient() as client:
        body = {"model": "r", "messages": [{"role": "user", "content": "hello"}]}
        for _ in range(3):
            answer = await client.post(f"http://127.0.0.1:{gateway}/v1/chat/completions", json=body)
            assert answer.status_code == 502
        page = (await client.get(f"http://127.0.0.1:{gateway}/metrics")).content
        linted = await asyncio.to_thread(
            subprocess.run, [binaries / "promtool", "check", "metrics"], input=page, capture_output=True, check=False
        )
        assert linted.returncode == 0, linted.stderr.decode()

        (port,) = free_ports(1)
        config = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
        assert "127.0.0.1:8080" in config
        file = tmp_path / "prometheus.yml"
        (tmp_path / "alerts.yml").write_text((ROOT / "deploy/prometheus/alerts.yml").read_text())
        file.write_text(config.replace("127.0.0.1:8080", f"127.0.0.1:{gateway}").replace("5s", "1s"))
        prometheus = await asyncio.create_subprocess_exec(
            binaries / "prometheus", f"--config.file={file}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            query = 'sum(retort_gateway_requests_total{route="r",status="5xx"})'
            while True:
                try:
                    got = await client.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query})
                    found = got.json()["data"]["result"] if got.status_code == 200 else []
                except httpx.TransportError:
                    found = []  # not listening yet
                if found:
                    break
                await asyncio.sleep(0.2)
            assert found[0]["value"][1] == "3"
        finally:
            prometheus.terminate()
            await prometheus.wait()


def firing(name: str, series: str, values: str, *, minutes: int, **labels: str) -> dict[str, object]:
    """A case for promtool: with these values a minute apart, who fires after so many minutes; no labels: nobody."""
    alerts = [{"exp_labels": labels}] if labels else []
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": values}],
        "alert_rule_test": [{"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": alerts}],
    }


def test_alerts_fire_for_what_they_are_for_and_for_nothing_else(binaries: Path, tmp_path: Path) -> None:
    rules = ROOT / "deploy/prometheus/alerts.yml"
    quarantined = 'retort_collector_quarantined_total{route="r",reason="timeout"}'
    dropped, refused = "retort_collector_frames_dropped_total", "retort_collector_spool_refused_total"
    shed, backlog = 'retort_collector_capture_shed_total{route="r"}', "retort_collector_backlog_bytes"
    damaged = "retort_collector_spool_damaged_total"
    failed, full = "retort_collector_log_failed_total", "retort_collector_log_full_total"
    subjects = "retort_collector_subjects_failed_total"
    drift, bound = 'retort_retrainer_drift{route="r"}', 'retort_retrainer_drift_bound{route="r"}'
    page = {"severity": "page"}
    cases = [
        firing("RetortQuarantine", quarantined, "0 0 0 1 1 1", minutes=5, route="r", reason="timeout", **page),
        firing("RetortQuarantine", quarantined, "_ _ _ 1 1 1", minutes=5, route="r", reason="timeout", **page),
        firing("RetortQuarantine", quarantined, "3x30", minutes=30),
        firing("RetortNotCaptured", dropped, "0 0 0 2 2 2", minutes=5, **page),
        firing("RetortNotCaptured", refused, "0 0 0 2 2 2", minutes=5, **page),
        firing("RetortNotCaptured", dropped, "7x30", minutes=30),
        firing("RetortSpoolDamaged", damaged, "0 0 0 1 1 1", minutes=5, **page),
        firing("RetortSpoolDamaged", damaged, "_ _ _ 1 1 1", minutes=5, **page),
        firing("RetortSpoolDamaged", damaged, "1x30", minutes=30),
        firing("RetortSampled", shed, "0+5x40", minutes=20, route="r", severity="ticket"),
        firing("RetortSampled", shed, "0+5x10", minutes=10),
        firing("RetortLogFull", full, "0 0 0 2 4 6", minutes=5, **page),
        firing("RetortLogFull", full, "6x30", minutes=30),
        firing("RetortLogAway", failed, "0+12x40", minutes=8, **page),
        firing("RetortLogAway", failed, "0 3 3 3 3 3 3 3 3", minutes=8),  # a broker that was started anew
        firing("RetortSubjectsAway", subjects, "0+12x40", minutes=8, **page),
        firing("RetortSubjectsAway", subjects, "0 3 3 3 3 3 3 3 3", minutes=8),
        firing("RetortBacklog", backlog, "90000000x20", minutes=12, severity="ticket"),
        firing("RetortBacklog", backlog, "90000000x8 0x20", minutes=15),
        firing("RetortDrift", drift, "0.1x5 0.3x5", minutes=8, route="r", severity="ticket"),
        firing("RetortDrift", drift, "0.3x5 0.1x5", minutes=8),
    ]
    for case in cases[-2:]:
        case["input_series"] += [{"series": bound, "values": "0.25x10"}]  # type: ignore[operator]
    file = tmp_path / "cases.yml"
    checked = [alert for case in cases for alert in case["alert_rule_test"][0]["exp_alerts"]]  # type: ignore[index]
    found = {r["alert"]: r["annotations"] for g in yaml.safe_load(rules.read_text())["groups"] for r in g["rules"]}
    assert len(checked) == 12
    for case in cases:
        (wanted,) = case["alert_rule_test"]  # type: ignore[misc]
        for alert in wanted["exp_alerts"]:
            labels = alert["exp_labels"]
            texts = {k: _filled(v, labels) for k, v in found[wanted["alertname"]].items()}
            alert["exp_annotations"] = texts
    file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": cases}))
    for arguments in (["check", "rules", str(rules)], ["test", "rules", str(file)]):
        said = subprocess.run([binaries / "promtool", *arguments], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout + said.stderr


def _filled(text: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        text = text.replace(f"{{{{ $labels.{name} }}}}", value)
    return text
