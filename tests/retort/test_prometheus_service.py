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

pytestmark = [pytest.mark.service, pytest.mark.e2e, pytest.mark.timeout(180)]


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
