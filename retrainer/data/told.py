"""What people should know of a data set before they trust what was learnt of it, in few words."""

from collections.abc import Mapping
from typing import Any


def told(manifest: Mapping[str, Any]) -> dict[str, str]:
    """By what it is about: how far the answers are from production's, how unevenly examples weigh, whether the teacher
    says the same again, what became of the operator's files, which answers were left out for their secrets, and how
    many for what else. What there is nothing to say of is left out. `manifest`: as `dataset.json` holds it."""
    said = {
        "answers against production's": _labels(manifest),
        "weights": _weights(manifest.get("weights") or {}),
        "teacher asked again": _consistency(manifest.get("consistency") or {}),
        "corrections": _corrections(manifest.get("corrections") or {}),
        "safety examples": _safety(manifest),
        "answers with secrets": _secrets((manifest.get("dropped") or {}).get("secret") or {}),
        "left out": ", ".join(f"{name} {left['count']}" for name, left in (manifest.get("dropped") or {}).items()),
    }
    return {name: text for name, text in said.items() if text}


def _labels(manifest: Mapping[str, Any]) -> str:
    """Of the field that has shifted most in what is learnt from."""
    if 0 < manifest.get("imported", 0) == sum(manifest["counts"].values()):
        return "nothing to compare with: all was imported or made from nothing"
    parts: Mapping[str, Mapping[str, Any]] = manifest.get("labels") or {}
    learnt = parts.get("train") or {}
    if not learnt:
        return "open text, not compared" if "train" in parts else ""
    field = max(learnt, key=lambda name: (learnt[name]["distance"], name))
    known = {part: found[field] for part, found in parts.items() if field in found}
    told_ = ", ".join(f"{found['distance']:.1%} apart in {part}" for part, found in known.items())
    missing, values = learnt[field]["missing"], learnt[field]["values"]
    lacking = f"; {missing} of {values} values are not learnt" if missing else ""
    more = f" (the most shifted of {len(learnt)} fields)" if len(learnt) > 1 else ""
    return f"{field}{more}: {told_}{lacking}"


def _weights(found: Mapping[str, float]) -> str:
    """Where they differ."""
    names = {"learnt": "", "held out": "held_out_"}
    uneven = {name: prefix for name, prefix in names.items() if found.get(f"{prefix}effective", 1.0) < 0.9995}
    return "; ".join(
        f"{name} {found[f'{prefix}least']:.2f} to {found[f'{prefix}most']:.2f}, which tell as much as "
        f"{found[f'{prefix}effective']:.0%} of the examples would evenly"
        for name, prefix in uneven.items()
    )


def _consistency(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    failed = sum(found["failed"].values())
    lost = f", {failed} without an answer" if failed else ""
    if found["agreement"] is None:
        return f"nothing could be compared of {found['asked']} prompts{lost}"
    return (
        f"agrees with itself by {found['agreement']:.1%} on {found['compared']} of {found['asked']} prompts, "
        f"{found['contradicted']} contradicted{lost}"
    )


def _corrections(found: Mapping[str, int]) -> str:
    """Where some name no record that was read."""
    lost = found.get("given", 0) - found.get("found", 0)
    return f"{lost} of {found['given']} name no record of the route's that was read" if lost else ""


def _safety(manifest: Mapping[str, Any]) -> str:
    """How many joined, where the route has a file of them."""
    given = (manifest.get("settings") or {}).get("safety")
    if not given:
        return ""
    learnt = manifest["counts"]["train"]
    return f"{manifest['added'].get('safety', 0)} beside {learnt} of the log, of the {given['share']:.0%} asked for"


def _secrets(found: Mapping[str, Any]) -> str:
    """With the ids of the first few, and what a person can do."""
    if not found:
        return ""
    ids = ", ".join(sample["id"] for sample in found["samples"])
    more = ", ..." if found["count"] > len(found["samples"]) else ""
    return (
        f"{found['count']} dropped, which hold a key, password or login that their request doesn't ({ids}{more}); "
        "where those are the route's own, and no secrets, retrain.data.secrets: keep learns them"
    )
