"""What scrubbing finds and what it takes for personal though it isn't, ours beside plain Presidio.

    scripts/bench pii_quality [--data ../shared/data] [--half develop]

`--data`: a folder with packages.jsonl.gz (Debian's package index) and pii-synth.jsonl.gz (the synthetic set of
Microsoft's presidio-research, MIT); each may be missing, and is then left out.

* planted: messages of chats in seven languages, forms, logs, JSON (value by value, as the scrubber reads it; plain
  Presidio reads it as a text), messages in scripts without spaces and real package descriptions, with entities planted
  by Faker (benchmarks/pii/), and texts without any that look as if. Templates and technical names are split into a half
  to develop on and one to report. An entity is found where all its letters and digits are covered.
* pii-synth: by character, whatever the label; templates of even number to develop on, of odd number to report. Of its
  labels eleven point at a person (pii.scoring.PERSONAL: persons, streets, places, postcodes, e-mails, phones, cards,
  IBANs, social security numbers, IP addresses, driving licences); finds under its other labels count neither way, and
  only letters and digits count. So plain Presidio has a precision of .81 and a recall of .65 on the whole of it, and
  its union with Rampart, unfiltered, .85 and .94.
* over-masking: the sample task's records, the texts that look as if, and long package descriptions.
"""

import argparse
import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import results_file

for unused in ("torch", "transformers"):
    sys.modules[unused] = None  # type: ignore[assignment] - as in a scrub worker

from pii.entities import STRUCTURED  # noqa: E402
from pii.finders import Find, ours, plain_presidio  # noqa: E402
from pii.planted import Half, chats, descriptions, in_half, negatives  # noqa: E402
from pii.scoring import altered, by_character, by_entity  # noqa: E402

from collector.scrub import Scrubber  # noqa: E402 - after that
from retort.sample.records import packages  # noqa: E402

MESSAGES, DESCRIPTIONS, NEGATIVES = 3750, 300, 1000  # of each half
TODAY = 0.0235  # the share of the sample's records that may be altered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--half", choices=["develop"], help="only that half, and nothing is written")
    options = parser.parse_args()
    index, synthetic = (_read(options.data / f"{name}.jsonl.gz") for name in ("packages", "pii-synth"))
    finders = {"ours": ours(Scrubber(b"benchmark" * 4, routes={}))}
    if options.half is None:
        finders["plain presidio"] = plain_presidio()
    halves: tuple[Half, ...] = ("develop",) if options.half else ("held_out", "develop")
    figures: dict[str, Any] = {}
    for half in halves:
        texts = chats(half, MESSAGES) + negatives(half, NEGATIVES)
        texts += descriptions(half, index, DESCRIPTIONS) if index else []
        of_half = [r for r in synthetic if r["template"] % 2 == (half == "held_out")]
        figures[half] = {
            name: {
                "planted": by_entity(texts, find),
                "over-masking": _over_masking(half, index, find),
                **({"pii-synth": by_character(of_half, find)} if of_half else {}),
            }
            for name, find in finders.items()
        }
    if options.half:
        print(json.dumps(figures, indent=1, ensure_ascii=False))
        return
    figures["sample"] = {name: _sample(find) for name, find in finders.items()}
    figures["pii-synth, both halves"] = {name: by_character(synthetic, find) for name, find in finders.items()}
    results_file.write("pii_quality", figures, _goals(figures))


def _goals(figures: dict[str, Any]) -> list[dict[str, Any]]:
    goal, mine = results_file.goal, figures["held_out"]["ours"]
    planted, synthetic, sample = mine["planted"], mine.get("pii-synth"), figures["sample"]["ours"]
    goals = [
        goal("planted entities", planted["entities"], ">=", 5000),
        *(
            goal(f"{measure} of {kind}", planted["by entity"][kind][measure], ">=", least)
            for kind in STRUCTURED
            for measure, least in (("recall", 0.99), ("precision", 0.98))
        ),
        goal("share of the sample records altered", sample["share"], "<=", TODAY),
        goal("sample answers altered", sample["answers"], "==", 0),
    ]
    if synthetic:
        goals += [
            goal("recall on pii-synth, held out, by character", synthetic["recall"], ">=", 0.93),
            goal("precision on pii-synth, held out, by character", synthetic["precision"], ">=", 0.90),
        ]
    return goals


def _over_masking(half: Half, index: list[dict[str, Any]], find: Find) -> dict[str, Any]:
    found = {"look-alikes": altered((t.text for t in negatives(half, NEGATIVES)), find)}
    if index:
        drawn = random.Random(3).sample([p for p in index if in_half(p, half)], 400)
        found["descriptions"] = altered((p["description"] for p in drawn), find)
    return found


def _sample(find: Find) -> dict[str, Any]:
    """The sample task's records, as its app sends them."""
    drawn = random.Random(3).sample(packages(), 2000)
    answers = sum(bool(find(p.answer)) for p in drawn)
    return {**altered((p.question for p in drawn), find), "answers": answers}


def _read(file: Path) -> list[Any]:
    if not file.exists():
        print(f"{file} is not there; left out")
        return []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
