"""Precision, recall and F2, by entity and by character. Only letters and digits count: commas are nobody's."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from pii.entities import STRUCTURED
from pii.finders import Find
from pii.planted import Planted

# What of pii-synth points at a person. Other labels (organisations, dates, ages, titles, nationalities, domain names)
# are neither asked for nor held against who finds them; what has no label is.
PERSONAL = frozenset(
    ("PERSON", "STREET_ADDRESS", "GPE", "ZIP_CODE", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE",
     "US_SSN", "IP_ADDRESS", "US_DRIVER_LICENSE")
)  # fmt: skip


def _signs(text: str, start: int, end: int) -> set[int]:
    return {n for n in range(start, end) if text[n].isalnum()}


def f2(precision: float, recall: float) -> float:
    """The F measure that weighs recall twice."""
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def _measures(hit: int, meant: int, right: int, said: int) -> dict[str, float]:
    recall, precision = hit / meant if meant else 1.0, right / said if said else 1.0
    return {"precision": round(precision, 4), "recall": round(recall, 4), "f2": round(f2(precision, recall), 4)}


def by_entity(texts: Iterable[Planted], find: Find) -> dict[str, Any]:
    """A planted entity is found where all its letters and digits are covered, under whatever name. A find is right
    where half of its own are personal; one of a kind that was never planted counts under `other`."""
    meant, hit = Counter[str](), Counter[str]()
    said, right = Counter[str](), Counter[str]()
    languages: defaultdict[str, list[bool]] = defaultdict(list)
    lower: list[bool] = []
    for planted in texts:
        found = find(planted.text)
        covered = set[int]().union(*(_signs(planted.text, a, b) for _, a, b in found))
        personal = set[int]().union(*(_signs(planted.text, a, b) for _, a, b in planted.spans))
        for kind, a, b in planted.spans:
            whole = _signs(planted.text, a, b) <= covered
            meant[kind] += 1
            hit[kind] += whole
            if kind == "PERSON":
                languages[planted.language].append(whole)
                lower += [whole] * planted.lower
        for kind, a, b in found:
            signs = _signs(planted.text, a, b)
            said[kind] += 1
            right[kind] += 2 * len(signs & personal) >= len(signs)
    kinds = sorted(meant)
    other = sorted(set(said) - set(meant))
    total = [sum(c[k] for k in STRUCTURED) for c in (hit, meant, right, said)]
    return {
        "entities": meant.total(),
        "all": _measures(hit.total(), meant.total(), right.total(), said.total()),
        "structured": {**_measures(*total), "entities": total[1]},
        "by entity": {k: {**_measures(hit[k], meant[k], right[k], said[k]), "entities": meant[k]} for k in kinds},
        "finds of other kinds": {k: {"found": said[k], "right": right[k]} for k in other},
        "recall of names by language": {k: round(sum(v) / len(v), 3) for k, v in sorted(languages.items())},
        "recall of names in lower case": round(sum(lower) / len(lower), 3),
    }


def by_character(records: Iterable[dict[str, Any]], find: Find) -> dict[str, Any]:
    """pii-synth, whatever the label."""
    said, hit, meant = 0, Counter[str](), Counter[str]()
    for record in records:
        text = record["text"]
        found = set[int]().union(*(_signs(text, a, b) for _, a, b in find(text)))
        for span in record["spans"]:
            signs = _signs(text, span["start"], span["end"])
            if span["type"] in PERSONAL:
                hit[span["type"]] += len(signs & found)
                meant[span["type"]] += len(signs)
            else:
                found -= signs
        said += len(found)
    measured = _measures(hit.total(), meant.total(), hit.total(), said)
    return {
        **measured,
        "characters": meant.total(),
        "recall by type": {k: round(hit[k] / n, 3) for k, n in sorted(meant.items())},
    }


def altered(texts: Iterable[str], find: Find) -> dict[str, Any]:
    """Over-masking: texts that hold nobody's data, and what is found in them all the same."""
    examples, characters, masked, count, changed = [], 0, 0, 0, 0
    for text in texts:
        found = find(text)
        count += 1
        changed += bool(found)
        characters += len(text)
        masked += sum(b - a for _, a, b in found)
        if found:
            examples.append("; ".join(f"{kind}: {text[a:b][:60]}" for kind, a, b in found[:3]))
    return {
        "share": round(changed / count, 4),
        "characters": round(masked / characters, 5),
        "texts": count,
        "examples": examples[:15],
    }
