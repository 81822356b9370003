"""What scrubbing finds, what it takes for personal though it isn't, and how fast it is. One process, one thread.

    scripts/bench scrub [--data ../shared/data]

Names and addresses are Faker's, in seven locales with fixed seeds, in chat sentences. Those "with context" hold words
that collector/plausible.py looks for; "names, bare" is the harder figure, and pii-synth the independent one.
Over-masking is measured on the sample task's records. `--data`: a folder with pii-synth.jsonl.gz (presidio-research's
synthetic set, MIT), if there is.
"""

import argparse
import gzip
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import results_file
from faker import Faker

for unused in ("torch", "transformers"):
    sys.modules[unused] = None  # type: ignore[assignment] - as in a scrub worker

from collector.scrub import Scrubber  # noqa: E402 - after that
from retort.sample.records import packages  # noqa: E402

LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "en_IN")
WITH_CONTEXT = (
    "Hi, this is {}. Can you help me with my order?",
    "Please tell {} that I called.",
    "My colleague {} wrote this yesterday.",
    "Dear support, my name is {} and I can't log in.",
)
BARE = ("{} has not answered yet.", "Is {} in the office today?", "Meeting with {} at noon.")
ADDRESSES = ("Please ship it to {} by Friday.", "I live at {}.", "My new address is {}, thanks.")
PERSONAL = {"PERSON", "STREET_ADDRESS", "GPE", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN",
            "IP_ADDRESS", "ZIP_CODE", "US_DRIVER_LICENSE"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    options = parser.parse_args()
    scrubber = Scrubber(b"benchmark" * 4, keep={})

    def clean(text: str) -> str:
        out: str = scrubber.scrub([text], route="r", cluster="c").values[0]
        return out

    figures: dict[str, Any] = {
        "names, with context": names(clean, WITH_CONTEXT),
        "names, in lower case": names(lambda text: clean(text.lower()), WITH_CONTEXT, lower=True),
        "names, bare": names(clean, BARE),
        "addresses": addresses(clean),
        "structured": structured(clean),
        "over-masking": over_masking(clean),
        "speed": speed(),
    }
    synthetic = options.data / "pii-synth.jsonl.gz"
    if synthetic.exists():
        figures["pii-synth"] = labelled(scrubber, synthetic)
    else:
        print(f"{synthetic} is not there; left out")
    goal = results_file.goal
    goals = [
        goal("share of the sample records altered", figures["over-masking"]["share"], "<", 0.03),
        goal("answers altered", figures["over-masking"]["answers"], "==", 0),
        goal("recall of structured entities", figures["structured"]["recall"], ">=", 0.99),
        goal("recall of names with context", figures["names, with context"]["recall"], ">=", 0.90),
        goal("recall of names in lower case", figures["names, in lower case"]["recall"], ">=", 0.90),
        goal("recall of addresses", figures["addresses"]["recall"], ">=", 0.70),
    ]
    results_file.write("scrub", figures, goals)


def names(
    clean: Callable[[str], str], sentences: tuple[str, ...], *, lower: bool = False, each: int = 60
) -> dict[str, Any]:
    """A name counts as found where no word of it is left."""
    by_locale = {}
    for locale in LOCALES:
        fake = Faker(locale)
        fake.seed_instance(5)
        found = 0
        for i in range(each):
            name = f"{fake.first_name()} {fake.last_name()}"
            out = re.findall(r"\w+", clean(random.Random(i).choice(sentences).format(name)))
            found += not any(word in out for word in re.findall(r"\w+", name.lower() if lower else name))
        by_locale[locale] = round(found / each, 3)
    return {
        "recall": round(sum(by_locale.values()) / len(LOCALES), 3),
        "by_locale": by_locale,
        "n": each * len(LOCALES),
    }


def addresses(clean: Callable[[str], str], each: int = 60) -> dict[str, Any]:
    """An address counts as found where neither its street nor its town is left."""
    by_locale = {}
    for locale in LOCALES:
        fake = Faker(locale)
        fake.seed_instance(5)
        found = 0
        for i in range(each):
            street, city = fake.street_name(), fake.city()
            out = clean(random.Random(i).choice(ADDRESSES).format(f"{fake.building_number()} {street}, {city}"))
            found += street not in out and city not in out
        by_locale[locale] = round(found / each, 3)
    return {
        "recall": round(sum(by_locale.values()) / len(LOCALES), 3),
        "by_locale": by_locale,
        "n": each * len(LOCALES),
    }


def structured(clean: Callable[[str], str], each: int = 40) -> dict[str, Any]:
    """Planted in sentences; found where the text is gone."""
    fake = Faker("en_US")
    fake.seed_instance(9)
    draw = random.Random(9)

    def key(prefix: str, count: int) -> str:
        return prefix + "".join(draw.choices("ABCDEFGHJKMNPQRSTabcdefghkmnpqrst23456789", k=count))

    kinds: dict[str, Callable[[], str]] = {
        "email": fake.email,
        "card": lambda: fake.credit_card_number(draw.choice(["visa16", "mastercard", "amex"])),
        "iban": fake.iban,
        "phone": lambda: f"+1 {draw.choice(['415', '212', '303'])} {draw.randint(200, 999)} {draw.randint(1000, 9999)}",
        "ipv4": fake.ipv4_public,
        "mac": fake.mac_address,
        "openai key": lambda: key("sk-", 40),
        "github token": lambda: key("ghp_", 36),
        "aws key": lambda: "AKIA" + key("", 16).upper(),
        "url with password": lambda: f"https://{fake.user_name()}:{key('', 10)}@example.net/x",
    }
    sentences = ("It is {}.", "see {} and call back", "{}", 'value="{}"', "my details: {}, thanks")
    recall = {}
    for name, make in kinds.items():
        found = 0
        for i in range(each):
            text = make()
            found += text not in clean(sentences[i % len(sentences)].format(text))
        recall[name] = round(found / each, 3)
    return {"recall": round(sum(recall.values()) / len(recall), 4), "by_kind": recall, "n": each * len(kinds)}


def over_masking(clean: Callable[[str], str], n: int = 2000) -> dict[str, Any]:
    draw = random.Random(3).sample(packages(), n)
    altered = [p.question for p in draw if clean(p.question) != p.question]
    answers = sum(clean(p.answer) != p.answer for p in draw)
    return {"share": len(altered) / n, "answers": answers, "n": n, "examples": altered[:15]}


def speed(n: int = 600) -> dict[str, Any]:
    """Fresh texts, so that nothing is remembered; then the same again."""
    fresh = Scrubber(b"speed" * 7, keep={})
    texts = [p.question for p in random.Random(4).sample(packages(), n)]
    figures = {}
    for name in ("fresh", "known"):
        began = time.process_time()
        for text in texts:
            fresh.scrub([text], route="r", cluster="c")
        figures[f"{name}, ms a record"] = round((time.process_time() - began) / n * 1000, 3)
    return {**figures, "n": n, "mean characters": sum(map(len, texts)) // n}


def labelled(scrubber: Scrubber, path: Path) -> dict[str, Any]:
    """Character level, whatever the label: how much of the personal text was found, and how much of the found was."""
    said = 0
    hit, meant = Counter[str](), Counter[str]()
    with gzip.open(path, "rt") as lines:
        for line in lines:
            record = json.loads(line)
            found = {c for _, a, b in scrubber.spans(record["text"]) for c in range(a, b)}
            for span in record["spans"]:
                place = set(range(span["start"], span["end"]))
                if span["type"] in PERSONAL:
                    hit[span["type"]] += len(place & found)
                    meant[span["type"]] += len(place)
                else:
                    found -= place
            said += len(found)
    return {
        "precision": round(hit.total() / said, 3),
        "recall": round(hit.total() / meant.total(), 3),
        "recall by type": {kind: round(hit[kind] / n, 3) for kind, n in sorted(meant.items())},
        "characters by type": dict(sorted(meant.items())),
    }


if __name__ == "__main__":
    main()
