"""The tasks that recipes are compared on: Debian's packages, by name and synopsis; records in a fixed random order."""

import gzip
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retort.sample.records import packages
from retrainer.data.curate import Example

SECTION = 'Which section of the Debian archive does this package belong to? Answer with JSON: {"section": "..."}'
FIELDS = (
    "In which section of the Debian archive is this package, which role has it, and in which language is it written? "
    'Answer with JSON: {"section": "...", "role": "...", "language": "..."}'
)
TASKS = ("community", "section", "fields")


def draw(task: str, count: int, *, data: Path) -> list[Example]:
    """`community`: the sample task, 8 classes. `section`: 53 classes. `fields`: an answer of three fields, for packages
    whose tags say role and language. The first `count` of them, each package once."""
    if task == "community":
        found = [_example(p.package, p.messages, p.answer) for p in packages()]
        return random.Random(7).sample(found, min(count, len(found)))
    rows = [json.loads(line) for line in gzip.decompress(data.read_bytes()).splitlines()]
    found = []
    for row in {row["package"]: row for row in rows}.values():
        answer = {"section": row["section"]}
        if task == "fields":
            answer |= {"role": _tag(row, "role"), "language": _tag(row, "implemented-in")}
        if all(answer.values()):
            system = {"role": "system", "content": SECTION if task == "section" else FIELDS}
            user = {"role": "user", "content": f"{row['package']}: {row['synopsis']}"}
            found.append(_example(row["package"], [system, user], json.dumps(answer)))
    return random.Random(7).sample(found, min(count, len(found)))


def _tag(row: Mapping[str, Any], facet: str) -> str:
    return next((tag.split("::")[1] for tag in row["tags"] or [] if tag.startswith(f"{facet}::")), "")


def _example(name: str, messages: list[dict[str, str]], answer: str) -> Example:
    return Example(id=name, offset=0, at=0.0, cluster=name, messages=messages, answer=answer, group=name)
