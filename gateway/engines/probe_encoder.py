"""Is a loaded encoder what its manifest says?"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from exporters.models import Manifest
from gateway.engines.child import Child
from gateway.engines.errors import DecodeFailed, InvalidRequest, NotReady


async def probe_encoder(child: Child, manifest: Manifest) -> None:
    """Ask for every golden vector, or scores, and at least for one: they may differ by what their entries allow. Raises
    NotReady, DecodeFailed, QueueFull, WorkerGone."""
    default = {"input": "ready?"} if child.loaded.does == "embed" else {"query": "ready?", "documents": ["Yes."]}
    for number, golden in enumerate(manifest.golden or [default]):
        try:
            near = await (_vector(child, golden) if child.loaded.does == "embed" else _scores(child, golden))
        except (KeyError, TypeError, ValueError) as error:
            raise NotReady(f"golden entry {number} of {manifest.id} can't be read: {error!r}") from error
        except DecodeFailed as error:
            raise DecodeFailed(f"a probe failed: {error}") from error
        except InvalidRequest as error:
            raise NotReady(f"a probe failed: {error}") from error
        if not near:
            raise NotReady(
                f"golden entry {number} of {manifest.id} comes out too different; "
                "the artefact, or the runtime that loaded it, is not the one that was exported"
            )


async def _vector(child: Child, golden: Mapping[str, Any]) -> bool:
    got = await child.embed([str(golden["input"])], truncate=True)
    found = np.frombuffer(got.vectors, dtype="<f4").astype(np.float64)
    if "vector" not in golden:
        return bool(np.isfinite(found).all())
    wanted = np.array(golden["vector"], dtype=np.float64)
    if found.shape != wanted.shape:
        return False
    cosine = float(found @ wanted) / max(float(np.linalg.norm(found) * np.linalg.norm(wanted)), 1e-12)
    return cosine >= float(golden["cosine"])


async def _scores(child: Child, golden: Mapping[str, Any]) -> bool:
    got = await child.rank(str(golden["query"]), [str(d) for d in golden["documents"]], truncate=True)
    if "scores" not in golden:
        return all(map(math.isfinite, got.scores))
    return all(
        abs(found - float(wanted)) <= float(golden["tolerance"])
        for found, wanted in zip(got.scores, golden["scores"], strict=True)
    )
