"""An engine before a real vLLM, as the tests ask it."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from engine_fakes import FakeCollector, FakeRegistry, until
from vllm_service import python
from vllm_students import MOST, QUESTION

from exporters.models import Store
from router import Config, parse

START = 400.0  # seconds: 30 to 45 for each server on a quiet machine


class Engine(msgspec.Struct):
    """One engine process's agent in this process, with what it serves. `named`: what the command lines of its servers
    name."""

    registry: FakeRegistry
    collector: FakeCollector
    client: aiohttp.ClientSession
    store: Store
    state: Path
    named: Path

    async def ask(self, version_id: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        body = {"messages": QUESTION, "temperature": 0, "max_tokens": MOST, **fields}
        url = self.registry.endpoints[version_id] + "/chat/completions"
        async with self.client.post(url, json=body) as response:
            return response.status, await response.json()

    async def stream(self, url: str, *, heard: list[str] | None = None, **fields: Any) -> tuple[str, str, str]:
        """Model, text and how it ended: a finish reason, or an error's code. `heard` gets each piece as it comes."""
        body = {"messages": QUESTION, "temperature": 0, "max_tokens": MOST, "stream": True, **fields}
        model = text = ended = ""
        async with self.client.post(f"{url}/chat/completions", json=body) as response:
            if response.status != 200:
                return model, text, (await response.json())["error"]["code"]
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                data = json.loads(line[6:])
                if "error" in data:
                    return model, text, data["error"]["code"]
                model = data["model"]
                for choice in data["choices"]:
                    text += choice["delta"].get("content") or ""
                    ended = choice["finish_reason"] or ended
                    if heard is not None and choice["delta"].get("content"):
                        heard.append(choice["delta"]["content"])
        return model, text, ended

    async def ready(self, *names: str) -> None:
        await until(lambda: set(self.registry.endpoints) == set(names), seconds=START)

    def cores(self) -> list[int]:
        """Process ids of vLLM's engine cores that serve this engine's models."""
        found = []
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
                parent = Path(f"/proc/{fields['PPid']}/cmdline").read_text()
            except OSError:
                continue
            if fields["Name"].startswith("VLLM::Engine") and str(self.named) in parent:
                found.append(int(fields["Pid"]))
        return found


def settings(state: Path, store: Store, **vllm: Any) -> Config:
    given = {"python": python(), "max_num_seqs": 8, "arguments": ["--dtype", "float32"], **vllm}
    engine = {"runtime": "vllm", "threads": 1, "vllm": given}
    return parse(
        f"""
state: {state}
artefacts: {store.path("x").parent}
upstreams: {{up: {{base_url: "http://127.0.0.1:9/v1", distillation_allowed: true}}}}
engines: {{local: {json.dumps(engine)}}}
routes: {{support: {{teachers: [up/big], student: {{engine: local}}}}}}
""",
        {},
    )
