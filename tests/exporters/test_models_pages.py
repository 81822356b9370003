from pathlib import Path

import pytest

from exporters.models import ForbiddenFile, Manifest, Store
from exporters.models.harmless import INERT_HTML


def manifest() -> Manifest:
    return Manifest(
        id="v1", route="r", kind="chat", runtime="onnxruntime-genai", base="b", base_revision="1", quantization="int8",
        created_at=0.0, files={},
    )  # fmt: skip


@pytest.mark.parametrize("page", ["<script>alert(1)</script>", f"<script>x</script>{INERT_HTML}", ""])
def test_a_page_that_could_run_a_script_never_gets_into_an_artefact(tmp_path: Path, page: str) -> None:
    store = Store(tmp_path)
    staging = store.staging("v1")
    (staging / "card.html").write_text(page)
    with pytest.raises(ForbiddenFile, match="policy that keeps it from running scripts"):
        store.add(staging, manifest())


def test_a_page_under_the_policy_does(tmp_path: Path) -> None:
    store = Store(tmp_path)
    staging = store.staging("v1")
    (staging / "card.html").write_text(f"{INERT_HTML}<title>x</title>")
    store.add(staging, manifest())
    assert set(store.verify("v1").files) == {"card.html"}
