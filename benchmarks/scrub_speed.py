"""How fast scrubbing is on real conversations, beside plain Presidio, for each core.

    scripts/bench scrub_speed [--conversations 2000] [--data ../shared/data/packages.jsonl.gz]

2,000 conversations of 6 turns with a system prompt: questions about real packages, answered with their descriptions,
one sentence of each conversation with planted personal data. Every request re-sends what was said before. Ours is a
scrub worker as it runs: one process, one thread, records in the order of the turns with 50 conversations at a time.
Plain Presidio (its default recognisers over spaCy's small English model, all pipes that it asks for) looks at all of
each request and answer, as a scrubber without memory does; it gets the records of every 40th conversation, being slow.
Both times are CPU times of the process. "the same found": of the planted values that plain Presidio finds, how many
ours finds too. Single shot: each text once, nothing remembered.
"""

import argparse
import gzip
import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import results_file

for unused in ("torch", "transformers"):
    sys.modules[unused] = None  # type: ignore[assignment] - as in a scrub worker

from faker import Faker  # noqa: E402
from pii.finders import plain_presidio  # noqa: E402

from collector.scrub import Scrubber  # noqa: E402

TURNS = 6
AT_ONCE = 50
EVERY = 40
RULES = (
    "You answer questions about Debian packages for the users of a help desk. Be brief and exact: name the package, "
    "say what it does and what it depends on. Say so when you don't know, and never invent a package. Answer in "
    "English, in plain sentences. Where several packages would do, name the one that the archive has had longest. "
    "These are the packages that users ask about most, as examples of the tone:\n"
)
EXAMPLES = 30  # packages whose synopses stand in the system prompt
PLANTS = (
    "By the way, my name is {name}, write to {email} if you find more.",
    "Please call me at {phone} about it, {name} here.",
    "I'm {name}; bill it to my card {card}, thanks.",
)


class Turn:
    """One record: the request's messages with all that was said, and the answer."""

    def __init__(self, conversation: int, messages: list[dict[str, str]], answer: str) -> None:
        self.conversation = conversation
        self.messages = messages
        self.answer = answer


def conversations(count: int, data: Path) -> tuple[list[list[Turn]], list[list[str]]]:
    """The turns of each conversation, and the values planted in it."""
    fake, draw = Faker("en_US"), random.Random(7)
    fake.seed_instance(7)
    with gzip.open(data, "rt") as lines:
        records = [json.loads(line) for line in lines]
    examples = random.Random(3).sample(records, EXAMPLES)
    system = RULES + "\n".join(f"- {p['package']}: {p['synopsis']}" for p in examples)
    found, planted = [], []
    for number in range(count):
        values = {
            "name": f"{fake.first_name()} {fake.last_name()}",
            "email": fake.email(),
            "phone": f"+1 {draw.choice(['415', '212', '303'])} {draw.randint(201, 999)} {draw.randint(1000, 9999)}",
            "card": fake.credit_card_number("visa16"),
        }
        plant = PLANTS[number % len(PLANTS)]
        planted.append([value for key, value in values.items() if f"{{{key}}}" in plant])
        messages, turns = [{"role": "system", "content": system}], []
        for turn in range(TURNS):
            package = records[(number * TURNS + turn) % len(records)]
            text = f"What is {package['package']}, and would it help with {package['synopsis'].lower()}?"
            if turn == number % TURNS:
                text = f"{text} {plant.format(**values)}"
            messages = [*messages, {"role": "user", "content": text}]
            answer = f"{package['package']}: {package['synopsis']}. {package['description']}"[:1200]
            turns.append(Turn(number, messages, answer))
            messages = [*messages, {"role": "assistant", "content": answer}]
        found.append(turns)
    return found, planted


def in_order(every: list[list[Turn]]) -> Iterator[Turn]:
    """As they come: so many conversations at a time, a turn of each in turn."""
    for start in range(0, len(every), AT_ONCE):
        for turn in range(TURNS):
            for conversation in every[start : start + AT_ONCE]:
                yield conversation[turn]


def ours(every: list[list[Turn]]) -> tuple[float, dict[int, str]]:
    """CPU seconds, and what is left of each conversation's last record."""
    scrubber = Scrubber(b"benchmark" * 4, routes={})
    last: dict[int, str] = {}
    began = time.process_time()
    for turn in in_order(every):
        clean = scrubber.scrub([{"messages": turn.messages}, turn.answer], route="r", cluster=str(turn.conversation))
        last[turn.conversation] = str(clean.values)
    return time.process_time() - began, last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data/packages.jsonl.gz"
    )
    options = parser.parse_args()
    every, planted = conversations(options.conversations, options.data)
    figures: dict[str, Any] = {}

    seconds, last = ours(every)
    records = len(every) * TURNS
    characters = sum(len(t.answer) + sum(len(m["content"]) for m in t.messages) for c in every for t in c) // records
    figures["ours"] = {"records": records, "ms a record": round(seconds / records * 1000, 3)}
    figures["characters a record"] = characters

    find = plain_presidio()
    sample = every[::EVERY]
    caught: dict[int, set[str]] = {}
    began = time.process_time()
    for conversation in sample:
        for turn in conversation:
            for text in [*(m["content"] for m in turn.messages), turn.answer]:
                spans = [text[start:end] for _, start, end in find(text)]
                caught.setdefault(turn.conversation, set()).update(spans)
    slow = (time.process_time() - began) / (len(sample) * TURNS)
    figures["plain Presidio"] = {"records": len(sample) * TURNS, "ms a record": round(slow * 1000, 3)}
    found = [
        (number, value)
        for number, spans in caught.items()
        for value in planted[number]
        if any(value in span or span in value for span in spans)
    ]
    same = sum(value not in last[number] for number, value in found)
    figures["planted values that plain Presidio finds"] = len(found)
    figures["of these found by ours"] = same
    figures["planted"] = {"values": sum(map(len, planted)), "left by ours": _left(planted, last)}
    figures["single shot"] = single_shot(every, find)
    ratio = round(slow / (seconds / records), 1)
    figures["records for each core, times plain Presidio"] = ratio
    figures["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    results_file.write(
        "scrub_speed",
        figures,
        [
            results_file.goal("records for each core, times plain Presidio", ratio, ">=", 10),
            results_file.goal("share of what plain Presidio finds", round(same / max(len(found), 1), 4), ">=", 1.0),
        ],
    )


def _left(planted: list[list[str]], last: dict[int, str]) -> int:
    return sum(value in last[number] for number, values in enumerate(planted) for value in values)


def single_shot(every: list[list[Turn]], find: Any) -> dict[str, Any]:
    """Texts that nobody said before."""
    texts = [turn.answer for conversation in every[::EVERY] for turn in conversation]
    scrubber = Scrubber(b"single" * 6, routes={})
    times = {}
    for name, look in (("ours", lambda t: scrubber.scrub([t], route="r", cluster="c")), ("plain Presidio", find)):
        began = time.process_time()
        for text in texts:
            look(text)
        times[name] = time.process_time() - began
    size = sum(map(len, texts))
    return {
        "texts": len(texts),
        "mean characters": size // len(texts),
        **{f"{name}, ms a KB": round(seconds / size * 1000 * 1024, 2) for name, seconds in times.items()},
    }


if __name__ == "__main__":
    main()
