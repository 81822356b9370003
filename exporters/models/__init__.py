from exporters.models.errors import ArtefactError, CorruptArtefact, ExportFailed, ForbiddenFile, MissingArtefact
from exporters.models.genai import GenAIGenerator, Generated, Messages
from exporters.models.golden import record as record_golden
from exporters.models.manifest import Manifest
from exporters.models.merge import Merged, merge
from exporters.models.store import Store, digest, sync, write_atomic
from exporters.models.to_onnx import QUANTIZERS, to_onnx

__all__ = [
    "QUANTIZERS",
    "ArtefactError",
    "CorruptArtefact",
    "ExportFailed",
    "ForbiddenFile",
    "GenAIGenerator",
    "Generated",
    "Manifest",
    "Merged",
    "Messages",
    "MissingArtefact",
    "Store",
    "digest",
    "merge",
    "record_golden",
    "sync",
    "to_onnx",
    "write_atomic",
]
