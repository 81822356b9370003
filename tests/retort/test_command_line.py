"""The command line: bad input is told in one message, with what would be right."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from exporters.models import Manifest, Store
from exporters.models.harmless import INERT_HTML
from exporters.models.open_store import open_store
from retort.demo.settings import free_ports
from retort.settings import load
from retort.supervisor import programs
from router import open_registry, parse
from router.registry import Stage, Version
from router.tasks import TaskKind

ROOT = Path(__file__).parents[2]
CONFIG = """
state: {state}
listen: 127.0.0.1:{port}
upstreams: {{o: {{base_url: "http://127.0.0.1:1/v1", distillation_allowed: true}}}}
engines: {{local: {{}}}}
routes: {{r: {{teachers: [o/m], student: {{}}}}}}
"""


def retort(*arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "retort", *arguments]
    environ = {**os.environ, **environ}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd or ROOT, env=environ, timeout=60)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (port,) = free_ports(1)
    file = tmp_path / "retort.yaml"
    file.write_text(CONFIG.format(state=tmp_path / "state", port=port))
    return file


def test_a_good_file_is_called_good_and_a_wrong_one_is_refused_with_its_key(config: Path) -> None:
    good = retort("check", str(config))
    assert (good.returncode, good.stdout.strip()) == (0, f"{config}: good; 1 route(s): r")
    config.write_text(config.read_text().replace("student: {}", "student: {bas: x}"))
    bad = retort("check", str(config))
    assert bad.returncode == 2
    assert f"{config}: routes.r.student.bas: unknown key" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_check_of_an_engine_of_vllm_wants_its_base_and_tells_what_is_not_installed_here(
    config: Path, tmp_path: Path
) -> None:
    text = config.read_text()
    assert "engines: {local: {}}" in text

    def checked(vllm: str) -> subprocess.CompletedProcess[str]:
        engine = f"engines: {{local: {{runtime: vllm, vllm: {vllm}}}}}"
        config.write_text(text.replace("engines: {local: {}}", engine))
        return retort("check", str(config))

    bad = checked(f"{{adapters_on: {tmp_path}}}")
    assert bad.returncode == 2
    assert f"engines.local.vllm.adapters_on: {tmp_path} is no Hugging Face model folder" in bad.stderr
    lacking = checked("{python: nowhere/python}").stdout
    assert (
        "not checked: engines.local.vllm.python: nowhere/python is not on this machine; scripts/install_vllm" in lacking
    )
    assert checked("{urls: ['http://vllm-0:8000'], adapters_on: /models/base}").returncode == 0


def test_a_base_model_that_is_nowhere_is_told_with_its_key_and_one_of_the_hub_is_left_unchecked(
    config: Path, tmp_path: Path
) -> None:
    text, folder = config.read_text(), tmp_path / "mine"
    folder.mkdir()

    def checked(student: str, *, retrain: str = "") -> subprocess.CompletedProcess[str]:
        config.write_text(text.replace("student: {}", f"student: {student}{retrain}"))
        return retort("check", str(config), HF_HUB_CACHE=str(tmp_path / "hub"))

    for wrong in ("SmolLM2-135M-Instruckt", str(folder), "./no/where"):
        bad = checked(f"{{base: {wrong}}}")
        assert (bad.returncode, bad.stdout) == (2, "")
        assert f"{config}: routes.r.student.base: no base model '{wrong}': it is neither a Hugging Face" in bad.stderr
    (folder / "config.json").write_text("{}")
    assert "mine holds no .safetensors file" in checked(f"{{base: {folder}}}").stderr
    (folder / "model.safetensors").write_bytes(b"x")
    assert checked(f"{{base: {folder}}}").stdout == f"{config}: good; 1 route(s): r\n"
    hub = checked("{recipe: auto, ladder: [some/Model-1B]}", retrain=", retrain: {distil: {teacher: nope}}")
    assert "routes.r.retrain.distil.teacher: no base model 'nope'" in hub.stderr
    hub = checked("{recipe: auto, ladder: [some/Model-1B]}")
    assert hub.returncode == 0
    assert "  not checked: routes.r.student.ladder[0]: some/Model-1B is not on this machine; `hf download" in hub.stdout
    assert checked("{base: nope, recipe: linear}").returncode == 0, "it chooses, and has no base"


def test_a_check_loads_no_torch_and_without_the_retrainer_leaves_the_bases_out(config: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch is imported')")
    assert retort("check", str(config), PYTHONPATH=f"{tmp_path}:{ROOT}").returncode == 0
    info = tmp_path / "retort_gateway-0.1.0.dist-info"
    info.mkdir()
    wanted = "Requires-Dist: no-such-package>=1; extra == 'retrainer'\n"
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: retort-gateway\nVersion: 0.1.0\n{wanted}")
    said = retort("check", str(config), PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert said.returncode == 0
    assert "not checked: the students' base models; the retrainer is not installed here" in said.stdout


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    said = retort("up", cwd=tmp_path)
    assert said.returncode == 2
    assert "retort.yaml: no such file" in said.stderr
    assert "--config" in said.stderr


EXTRAS = ("collector", "engine", "retrainer", "postgres")


@pytest.mark.parametrize("command", [["up"], ["collector"], ["retrain", "r"], ["engine", "local"], ["gateway"]])
def test_a_part_that_is_not_installed_is_told_with_what_installs_it(
    command: list[str], config: Path, tmp_path: Path
) -> None:
    info = tmp_path / "retort_gateway-0.1.0.dist-info"
    info.mkdir()
    config.write_text(config.read_text() + "registry: postgresql://127.0.0.1:1/x\n")
    wanted = "".join(f"Requires-Dist: no-such-{extra}>=1; extra == '{extra}'\n" for extra in EXTRAS)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: retort-gateway\nVersion: 0.1.0\n{wanted}")
    said = retort(*command, "--config", str(config), PYTHONPATH=str(tmp_path))
    named = {"up": EXTRAS, "retrain": ("retrainer",), "gateway": ("postgres",)}
    needed = named.get(command[0], (command[0], "postgres"))
    assert said.returncode == 2
    assert f"pip install 'retort-gateway[{','.join(needed)}]'" in said.stderr
    assert f"missing: {', '.join(f'no-such-{extra}' for extra in sorted(needed))}" in said.stderr


@pytest.mark.parametrize("command", [["status"], ["promote", "r", "v", "--why", "w"], ["replay"], ["plan", "r"]])
def test_a_registry_that_can_not_be_reached_is_told(command: list[str], config: Path) -> None:
    config.write_text(config.read_text() + "registry: postgresql://u:s3cret@127.0.0.1:1/x\n")
    said = retort(*command, "--config", str(config))
    assert said.returncode == 1
    assert said.stderr.startswith("retort: registry at 127.0.0.1: ")
    assert "port 1 failed" in said.stderr
    assert "Traceback" not in said.stderr
    assert "s3cret" not in said.stderr + said.stdout


def test_a_port_in_use_is_told_before_anything_starts(config: Path) -> None:
    port = parse(config.read_text(), {}).listen.rpartition(":")[2]
    with socket.create_server(("127.0.0.1", int(port))):
        said = retort("up", "--config", str(config))
    assert said.returncode == 2
    assert f"127.0.0.1:{port} is taken" in said.stderr
    assert "--port" in said.stderr


def test_a_log_that_no_two_processes_share_is_refused(config: Path) -> None:
    config.write_text(config.read_text() + "log: memory://\n")
    said = retort("up", "--config", str(config))
    assert said.returncode == 2
    assert "write sqlite:///PATH" in said.stderr


def test_a_log_that_can_not_be_reached_is_one_line_and_no_traceback(config: Path) -> None:
    config.write_text(config.read_text() + "log: kafka://127.0.0.1:1/retort\nkafka: {timeout: 1s}\n")
    for command in (("status",), ("replay",), ("demo", "--log", "kafka://127.0.0.1/x")):
        said = retort(*command, *(() if command[0] == "demo" else ("--config", str(config))), cwd=config.parent)
        assert said.returncode == 1
        (line,) = said.stderr.splitlines()
        assert line.startswith("retort: ")
        assert ("nobody answers at 127.0.0.1:1" if command[0] != "demo" else "write kafka://HOST:PORT") in line


def test_the_sample_teacher_says_that_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        said = retort("sample-teacher", "--port", str(s.getsockname()[1]))
    assert said.returncode == 2
    assert "another --port" in said.stderr


@pytest.mark.e2e
def test_a_second_up_on_the_same_state_is_refused_and_a_stop_is_clean(config: Path) -> None:
    command = [sys.executable, "-m", "retort", "up", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert any("Retort is ready" in line for line in first.stdout)
            second = retort("up", "--config", str(config), "--port", "1")
            assert second.returncode == 2
            assert "another `retort up`" in second.stderr
        finally:
            first.terminate()
            assert first.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("promote", "nope", "v", "--why", "x"), "no route 'nope'; the configuration has: r"),
        (("promote", "r", "v9", "--why", "x"), "no version 'v9'; route 'r' has: none"),
        (("rollback", "r", "--why", "x"), "nothing to roll back"),
        (("pause", "r", "--why", "x"), "Start Retort first"),
        (("retrain", "nope"), "no route 'nope' with a student; the configuration has: r"),
        (("retrain", "r", "--held-out", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("replay", "--route", "nope"), "no route 'nope'"),
        (("card", "v9"), "no artefact 'v9'"),
        (("engine", "nope"), "engine: 'nope' is not one of: local"),
    ],
)
def test_a_command_on_something_unknown_says_what_there_is(config: Path, arguments: tuple[str, ...], says: str) -> None:
    said = retort(*arguments, "--config", str(config))
    assert said.returncode == 2
    assert says in said.stderr
    assert "Traceback" not in said.stderr


def test_card_prints_the_path_of_a_versions_page(config: Path) -> None:
    store = Store(load(str(config)).artefacts)
    for name, files in (("v1", {"card.html": INERT_HTML, "card.md": "# v1"}), ("v0", {"a.json": "{}"})):
        staging = store.staging(name)
        for file, text in files.items():
            (staging / file).write_text(text)
        store.add(staging, made(name))
    said = retort("card", "v1", "--config", str(config)).stdout
    assert Path(said.strip()).read_text() == INERT_HTML
    said = retort("card", "v1", "--markdown", "--config", str(config)).stdout
    assert Path(said.strip()).read_text() == "# v1"
    assert "has no model card" in retort("card", "v0", "--config", str(config)).stderr


def test_artefacts_lists_what_there_is_and_removes_what_may_go(config: Path) -> None:
    settings = load(str(config))
    store = open_store(settings)
    registry = open_registry(settings.registry)
    for number in range(9):
        name = f"v{number}"
        (staging := store.staging(name)).joinpath("model.onnx").write_bytes(name.encode() * 1000)
        store.add(staging, made(name))
        if number < 8:
            stage = Stage.LIVE if number == 0 else Stage.RETIRED
            registry.add_version(version(name, stage))
    registry.close()
    said = retort("artefacts", "--config", str(config)).stdout.splitlines()
    assert said[0] == "v0: r, live; 0.0 MB, x, 1970-01-01; needed"
    assert [line.partition(":")[0] for line in said if line.endswith("; may go")] == ["v1", "v2"]
    assert said[-1].endswith("; of no version")
    rows = json.loads(retort("artefacts", "--unknown", "--json", "--config", str(config)).stdout)
    assert [row["artefact"] for row in rows if row["may_go"]] == ["v1", "v2", "v8"]
    done = retort("artefacts", "--unknown", "--remove", "--config", str(config))
    assert done.stdout.splitlines()[-1] == "removed 3 of 9"
    assert list(store.ids()) == ["v0", "v3", "v4", "v5", "v6", "v7"]


def made(name: str) -> Manifest:
    return Manifest(
        id=name, route="r", kind="chat", runtime="x", base="b", base_revision="1", quantization="int8", created_at=0.0,
        files={},
    )  # fmt: skip


def version(name: str, stage: Stage) -> Version:
    return Version(
        id=name,
        route="r",
        kind=TaskKind.CHAT,
        base="b",
        engine="local",
        artefact=name,
        created_at=float(name[1:]),
        stage=stage,
    )


def test_status_and_replay_of_an_empty_state(config: Path) -> None:
    status = retort("status", "--config", str(config))
    assert status.returncode == 0
    assert "no versions yet" in status.stdout
    assert retort("replay", "--config", str(config)).stdout.strip() == "r: 0 decisions, 0 differ"


def test_up_runs_a_process_for_each_room_and_the_sample_teacher_only_in_a_providers_place(tmp_path: Path) -> None:
    text = CONFIG.format(state=tmp_path, port=8080)
    names = [p.name for p in programs(parse(text, {}), "f", host="127.0.0.1", port=8080)]
    assert names == ["collector", "promoter", "engine local", "retrainer", "gateway"]
    example = (ROOT / "examples/quickstart/retort.yaml").read_text()
    assert "teacher 8090" in [p.name for p in programs(parse(example, {}), "f", host="h", port=1)]
    with_key = parse(example, {"OPENAI_API_KEY": "sk-1"})
    assert not [p.name for p in programs(with_key, "f", host="h", port=1) if "teacher" in p.name]
    two = parse(text + "workers: 2\n", {})
    assert [p.name for p in programs(two, "f", host="h", port=1)][-2:] == ["gateway 1", "gateway 2"]


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    said = subprocess.run(
        [*("bash", "-c", 'set -o pipefail; "$0" -m retort schema | true'), sys.executable],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert said.returncode in (0, 1)
    assert said.stderr == ""


def test_what_is_no_port_is_told(config: Path) -> None:
    for command in (["sample-teacher", "--port", "99999"], ["up", "--port", "x", "--config", str(config)]):
        said = retort(*command)
        assert said.returncode == 2
        assert "must be a port from 1 to 65535; got" in said.stderr
