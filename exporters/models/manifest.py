"""What an artefact is and where it came from. The manifest is written last, so a folder without one is no artefact."""

from typing import Any

import msgspec

NAME = "manifest.json"
GENAI, CLOSED, VLLM = "onnxruntime-genai", "closed", "vllm"  # runtimes
ENCODER, SEQ2SEQ = "onnx-encoder", "onnx-seq2seq"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`files`: sha256 by relative path, of every file but the manifest; `sizes`: their bytes. `runtime`: who can load
    it.

    `golden`: prompts (messages) with the greedy answers recorded at export, which an engine must reproduce before
    the version is ready; with the log probabilities of their tokens, for engines whose kernels differ; of an encoder
    texts with their vectors, or queries and documents with their scores. `tools`: the form of
    `exporters.models.tool_text` in which it learnt to call tools, None where it didn't. `report`: the
    evaluation; `gate`: its verdict. `signature`: of all the rest, see `exporters.models.signing`.
    """

    schema: int = 1
    id: str
    route: str
    kind: str
    runtime: str
    base: str
    base_revision: str
    quantization: str
    created_at: float
    files: dict[str, str]
    sizes: dict[str, int] = {}
    dataset: dict[str, Any] = {}
    training: dict[str, Any] = {}
    report: dict[str, Any] = {}
    gate: dict[str, Any] = {}
    tools: str | None = None
    golden: list[dict[str, Any]] = []
    packages: dict[str, str] = {}
    signature: str = ""
