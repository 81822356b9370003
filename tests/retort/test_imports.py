"""Who may import whom, and what stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "router": set[str](),
    "collector": {"router"},
    "exporters": {"router"},
    "gateway": {"router", "collector", "exporters"},
    "retrainer": {"router", "collector", "exporters"},
    "retort": {"router", "collector", "exporters", "gateway", "retrainer"},
}
HEAVY = (
    "torch", "transformers", "spacy", "presidio_analyzer", "onnxruntime", "onnxruntime_genai", "kafka", "faker",
    "psycopg",
)  # fmt: skip
NEVER_IN_ROUTER = ("torch", "fastapi", "aiohttp", "kafka", "prometheus_client", "os", "time.time")


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        rooms = {name.split(".")[0] for name in imports(file)} & set(ALLOWED) - {room}
        assert rooms <= ALLOWED[room], f"{file.relative_to(ROOT)} imports {rooms - ALLOWED[room]}"


@pytest.mark.parametrize(
    ("package", "above"),
    [
        ("train", {"evaluation", "safety", "card"}),
        ("evaluation", {"safety", "card", "recipes"}),
        ("safety", {"card", "recipes", "train"}),
    ],
)
def test_what_a_retrainers_package_rests_on_knows_nothing_of_it(package: str, above: set[str]) -> None:
    for file in (ROOT / "retrainer" / package).glob("*.py"):
        known = {name.split(".")[1] for name in imports(file) if name.startswith("retrainer.")}
        assert not known & above, f"{file.relative_to(ROOT)} imports {known & above}"


def test_the_data_plane_and_the_engines_meet_only_over_http() -> None:
    for file in (ROOT / "gateway").rglob("*.py"):
        inside = "engines" in file.parts
        for name in imports(file):
            if name.startswith("gateway"):
                assert name.startswith("gateway.engines") == inside, f"{file.relative_to(ROOT)} imports {name}"


def test_the_router_reads_no_environment_and_knows_no_framework() -> None:
    for file in (ROOT / "router").rglob("*.py"):
        assert not imports(file) & set(NEVER_IN_ROUTER), file


def test_the_exporters_do_not_import_torch_at_package_import_and_the_rooms_stay_light() -> None:
    code = (
        "import sys, gateway, gateway.app, gateway.serve, gateway.engines, router, collector, exporters, retort.cli\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert said.strip() == "[]"
