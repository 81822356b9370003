from exporters.models.awq_layout import dequantize
from exporters.models.confidence import Calibration, Confidence, Curve
from exporters.models.errors import ArtefactError, CorruptArtefact, ExportFailed, ForbiddenFile, MissingArtefact
from exporters.models.genai import GenAIGenerator, Generated, Messages
from exporters.models.golden import record as record_golden
from exporters.models.manifest import CLOSED, ENCODER, GENAI, SEQ2SEQ, VLLM, Manifest
from exporters.models.merge import Merged, merge, write_dense
from exporters.models.parity import Parity, parity, require
from exporters.models.signals import FEATURES, PREFIX_TOKENS, Signals, prefix_signals, signals
from exporters.models.store import Store, digest
from exporters.models.to_awq import to_awq
from exporters.models.to_dense import to_dense
from exporters.models.to_gptq import to_gptq
from exporters.models.to_onnx import QUANTIZERS, to_onnx
from exporters.models.whole import alone, staged, sync, take, write_atomic

__all__ = [
    "CLOSED",
    "ENCODER",
    "FEATURES",
    "GENAI",
    "PREFIX_TOKENS",
    "QUANTIZERS",
    "SEQ2SEQ",
    "VLLM",
    "ArtefactError",
    "Calibration",
    "Confidence",
    "CorruptArtefact",
    "Curve",
    "ExportFailed",
    "ForbiddenFile",
    "GenAIGenerator",
    "Generated",
    "Manifest",
    "Merged",
    "Messages",
    "MissingArtefact",
    "Parity",
    "Signals",
    "Store",
    "alone",
    "dequantize",
    "digest",
    "merge",
    "parity",
    "prefix_signals",
    "record_golden",
    "require",
    "signals",
    "staged",
    "sync",
    "take",
    "to_awq",
    "to_dense",
    "to_gptq",
    "to_onnx",
    "write_atomic",
    "write_dense",
]
