"""How fast scrubbing is: one process, one thread. What it finds is benchmarks/pii_quality.py's.

scripts/bench scrub
"""

import random
import sys
import time
from typing import Any

import results_file

for unused in ("torch", "transformers"):
    sys.modules[unused] = None  # type: ignore[assignment] - as in a scrub worker

from pii.planted import chats  # noqa: E402

from collector.scrub import Scrubber  # noqa: E402 - after that
from retort.sample.records import packages  # noqa: E402


def main() -> None:
    figures = {
        "sample records": speed([p.question for p in random.Random(4).sample(packages(), 600)]),
        "chat messages": speed([t.text for t in random.Random(4).sample(chats("held_out", 3000), 600)]),
    }
    results_file.write("scrub", figures, [])


def speed(texts: list[str]) -> dict[str, Any]:
    """Fresh texts, so that nothing is remembered; then the same again."""
    fresh = Scrubber(b"speed" * 7, routes={})
    figures: dict[str, Any] = {}
    kilobytes = sum(len(text.encode()) for text in texts) / 1024
    for name in ("fresh", "known"):
        began = time.process_time()
        for text in texts:
            fresh.scrub([text], route="r", cluster="c")
        took = (time.process_time() - began) * 1000
        figures[f"{name}, ms a record"] = round(took / len(texts), 3)
        figures[f"{name}, ms a KB"] = round(took / kilobytes, 2)
    return {**figures, "n": len(texts), "mean characters": sum(map(len, texts)) // len(texts)}


if __name__ == "__main__":
    main()
