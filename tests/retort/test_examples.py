"""What README and examples/ show, run as they stand, on free ports and in a folder of the test's own."""

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from retort.cli import main
from retort.demo.settings import free_ports
from retort.up import ready
from router import parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean checkout, as far as `scripts/up` goes, with this one's environment; its sample teacher on a free port."""
    for part in ("scripts", "examples"):
        shutil.copytree(ROOT / part, tmp_path / part)
    for file in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    quickstart = tmp_path / "examples/quickstart/retort.yaml"
    text = quickstart.read_text()
    assert "127.0.0.1:8090" in text
    quickstart.write_text(text.replace("127.0.0.1:8090", f"127.0.0.1:{free_ports(1)[0]}"))
    return tmp_path


@pytest.mark.e2e
async def test_scripts_up_answers_readmes_client(checkout: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert "http://127.0.0.1:8080/v1" in snippet
    (port,) = free_ports(1)
    environ = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    up = await asyncio.create_subprocess_exec(checkout / "scripts/up", "--port", str(port), env=environ)
    gone = asyncio.Event()
    waiting = asyncio.create_task(up.wait())
    waiting.add_done_callback(lambda _: gone.set())
    try:
        assert await ready(f"http://127.0.0.1:{port}", gone)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            program = compile(snippet.replace("127.0.0.1:8080", f"127.0.0.1:{port}"), "README.md", "exec")
            await asyncio.to_thread(exec, program, {})
        assert json.loads(said.getvalue()) == {"community": "perl"}
        status = await asyncio.create_subprocess_exec(
            ".venv/bin/retort", "status", cwd=checkout, stdout=asyncio.subprocess.PIPE
        )
        told, _ = await status.communicate()
        assert status.returncode == 0
        assert "community" in told.decode()
        written = (checkout / "retort.yaml").read_text()
        assert written == (checkout / "examples/quickstart/retort.yaml").read_text()
    finally:
        if not gone.is_set():
            up.terminate()
        assert await waiting == 0


def test_every_example_configuration_is_good() -> None:
    scenarios = ROOT / "examples/bootstrap"  # those are read by the tests of bootstrap
    found = [file for file in (ROOT / "examples").rglob("*.yaml") if file.parent != scenarios]
    assert found
    for file in found:
        assert parse(file.read_text(), {"KAFKA_PASSWORD": "secret", "OPENAI_API_KEY": "sk-none"}).routes


def test_every_command_and_script_that_readme_names_is_there() -> None:
    commands = {word for cell in re.findall(r"^\| (`retort .*?) \|", README, re.M)
                for word in re.findall(r"`(?:retort )?([a-z-]+)", cell)}  # fmt: skip
    assert {"up", "status", "promote", "engine"} <= commands
    for command in commands:
        with pytest.raises(SystemExit, match="0"), contextlib.redirect_stdout(io.StringIO()):
            main([command, "--help"])
    for script in set(re.findall(r"scripts/[a-z_]+", README)):
        assert (ROOT / script).exists(), script
    for target in re.findall(r"\]\(([^):]+)\)", README):
        assert (ROOT / target).exists(), target
