"""What README and examples/ show, run as they stand, on free ports and in a folder of the test's own."""

import asyncio
import contextlib
import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from retort.cli import main
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports
from router import parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture
async def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The quickstart, running; gives its base_url."""
    gateway, teacher = free_ports(2)
    text = (ROOT / "examples/quickstart/retort.yaml").read_text()
    assert "127.0.0.1:8090" in text
    text = text.replace("127.0.0.1:8090", f"127.0.0.1:{teacher}")
    file = tmp_path / "retort.yaml"
    file.write_text(f"state: {tmp_path}/state\nlisten: 127.0.0.1:{gateway}\n{text}")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    retort = RetortProcess(file, f"http://127.0.0.1:{gateway}", tmp_path / "retort.log")
    await retort.start()
    yield f"http://127.0.0.1:{gateway}/v1"
    assert await retort.stop() == 0


@pytest.mark.e2e
async def test_readmes_client_gets_an_answer_from_the_quickstart(quickstart: str) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert "http://127.0.0.1:8080/v1" in snippet
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        program = compile(snippet.replace("http://127.0.0.1:8080/v1", quickstart), "README.md", "exec")
        await asyncio.to_thread(exec, program, {})
    assert json.loads(said.getvalue()) == {"community": "perl"}


def test_every_example_configuration_is_good() -> None:
    found = list((ROOT / "examples").rglob("retort*.yaml"))
    assert found
    for file in found:
        assert parse(file.read_text(), {}).routes


def test_every_command_and_script_that_readme_names_is_there() -> None:
    commands = {word for cell in re.findall(r"^\| (`retort .*?) \|", README, re.M)
                for word in re.findall(r"`(?:retort )?([a-z-]+)", cell)}  # fmt: skip
    assert {"up", "status", "promote", "engine"} <= commands
    for command in commands:
        with pytest.raises(SystemExit, match="0"), contextlib.redirect_stdout(io.StringIO()):
            main([command, "--help"])
    for script in set(re.findall(r"scripts/[a-z]+", README)):
        assert (ROOT / script).exists(), script
    for target in re.findall(r"\]\(([^):]+)\)", README):
        assert (ROOT / target).exists(), target
