"""What the engine's own process does not pay for."""

import subprocess
import sys


def test_the_agent_loads_no_model_library() -> None:
    """Only workers do; the agent must start fast and stay small."""
    heavy = "{'onnxruntime_genai', 'onnxruntime', 'torch', 'transformers', 'tokenizers', 'spacy'}"
    program = f"import sys, gateway.engines.agent\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_data_plane_is_not_loaded_either() -> None:
    """Engines meet the data plane over HTTP alone."""
    program = "import sys, gateway.engines.agent\nprint(sorted(m for m in sys.modules if m.startswith('gateway.')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = eval(done.stdout)
    assert [n for n in names if not n.startswith("gateway.engines")] == ["gateway.errors"]
