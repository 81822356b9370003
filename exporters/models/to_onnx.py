"""A dense Hugging Face folder becomes a quantized ONNX graph for onnxruntime-genai on the CPU.

int8 is the default: on a model of SmolLM2's size it keeps 95% of the top-1 choices (perplexity 34.0 against 33.8),
`k_quant_mixed` int4 keeps 77% at half the size; see `docs/`. The builder runs in a process of its own: its memory
(several times the model's) goes back when it ends, and its progress bars go to a file.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from exporters.child import ending_with
from exporters.models.errors import ExportFailed

Quantization = Literal["int8", "int4"]

# Layers that see a window of tokens keep the whole cache: one of the window's size can't be shorter than that, nor be
# rewound to a prefix that prompts share. The builder's own default for int4 (round to nearest, groups of 32) doubles
# the perplexity loss of k_quant_mixed.
_WHOLE_CACHE = "windowed_kv_cache=false"
_OPTIONS: dict[str, list[str]] = {
    "int8": ["-p", "int8", "--extra_options", _WHOLE_CACHE],
    "int4": ["-p", "int4", "--extra_options", _WHOLE_CACHE, "algo_config=k_quant_mixed"],
}
QUANTIZERS = {"int8": "onnxruntime-genai int8, groups of 32", "int4": "onnxruntime-genai int4, k_quant_mixed"}
FILES = ("genai_config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json")
TIMEOUT_SECONDS = 3600.0


BUILDER = (sys.executable, "-W", "ignore", "-m", "onnxruntime_genai.models.builder")


def to_onnx(model: Path, out: Path, *, quantization: Quantization, log: Path, builder: Sequence[str] = BUILDER) -> None:
    """Export the folder `model` into the existing, empty folder `out`; the builder's output goes to the file `log`.

    What was written is loaded and asked for one token before this returns: the builder can succeed and leave a graph
    that ONNX Runtime refuses. Raises ExportFailed.
    """
    if not (model / "config.json").is_file():
        raise ExportFailed(f"{model} is no Hugging Face model folder: it holds no config.json")
    command = [*builder, "-i", str(model), "-o", str(out), "-e", "cpu", "-c", str(log.parent / "builder-cache")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1"}
    environment["GIT_DIR"] = (
        os.devnull
    )  # else the commit of the repository that it is installed below goes into the graph
    with log.open("wb") as output:
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter, arguments as a list
                [*command, *_OPTIONS[quantization]],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=TIMEOUT_SECONDS,
                check=False,
                preexec_fn=ending_with(os.getpid()),
            )
        except subprocess.TimeoutExpired as error:
            raise ExportFailed(f"the ONNX builder did not end within {TIMEOUT_SECONDS:.0f} s; see {log}") from error
    if done.returncode != 0:
        tail = log.read_text(errors="replace")[-600:]
        raise ExportFailed(f"the ONNX builder ended with status {done.returncode}; see {log}:\n{tail}")
    missing = [name for name in FILES if not (out / name).is_file()]
    if missing:
        raise ExportFailed(f"the ONNX builder wrote no {', '.join(missing)} into {out}; see {log}")
    _load_test(out)


def _load_test(folder: Path) -> None:
    import numpy as np  # noqa: PLC0415 - with onnxruntime-genai, heavy
    import onnxruntime_genai as og  # noqa: PLC0415 - heavy: only exports and engines pay for it

    og.disable_telemetry_events()
    try:
        model = og.Model(str(folder))
        tokenizer = og.Tokenizer(model)
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=64, do_sample=False)
        generator = og.Generator(model, parameters)
        generator.append_tokens(np.asarray(tokenizer.encode("ready?"), dtype=np.int32))
        logits = np.asarray(generator.get_logits())
        generator.generate_next_token()
    except RuntimeError as error:
        raise ExportFailed(f"ONNX Runtime refuses the exported graph in {folder}: {error}") from error
    if not np.isfinite(logits).all():
        raise ExportFailed(f"the exported graph in {folder} computes values that are not finite")
