import subprocess
import sys


def test_importing_exporters_and_retrainer_loads_nothing_heavy() -> None:
    code = (
        "import sys, exporters.models, retrainer, retrainer.cycle, retrainer.daemon\n"
        "heavy = {'torch', 'transformers', 'peft', 'onnxruntime', 'onnxruntime_genai', 'scipy', 'spacy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
