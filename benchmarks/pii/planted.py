"""The labelled set: chats, forms, logs, JSON, scripts without spaces and real package descriptions with planted
entities, and texts without any.

Two halves that share no template and no technical name: one to develop on, one to report. Fixed seeds.
"""

import random
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from pii.entities import KINDS, LOCALES, SECRETS, Entities

Half = Literal["develop", "held_out"]

FOLDER = Path(__file__).resolve().parent
LOWER = 0.25  # share of messages written in lower case
SHARES = {"en": 3, "forms": 3, "json": 2}
AS_WRITTEN = ("json", "unspaced")  # never in lower case
_SLOT = re.compile(r"\{(\w+)\}")
_SEED = {"develop": 11, "held_out": 12}
_INTO_DESCRIPTIONS = (
    " Contact {person} <{email}> for details.", " Report bugs to {email} or call {phone}.",
    " Mirrors: {ip}, {ip6}.", " Donations: {btc}.", " Written by {person}, {address}.",
    " Set the token to {key} first.", " Test card: {card}.", " Sponsored from {iban}.",
)  # fmt: skip


class Planted(msgspec.Struct, frozen=True):
    """One text. `spans`: what was planted, as (kind, start, end). `language`: of the template; descriptions: `en`."""

    text: str
    spans: tuple[tuple[str, int, int], ...]
    language: str
    lower: bool = False


def chats(half: Half, count: int) -> list[Planted]:
    """`count` messages; each template of the half is used about as often as any other of its language."""
    templates: dict[str, list[str]] = _read("templates.yaml")[half]
    draw = random.Random(_SEED[half])
    makers = {locale: Entities(locale, _SEED[half]) for locales in LOCALES.values() for locale in locales}
    found = []
    shares = {language: SHARES.get(language, 1) for language in templates}
    for language, lines in templates.items():
        for n in range(count * shares[language] // sum(shares.values())):
            template = lines[n % len(lines)]
            entities = makers[LOCALES[language][n % len(LOCALES[language])]]
            lower = draw.random() < LOWER and not any(f"{{{s}}}" in template for s in SECRETS)
            lower = lower and language not in AS_WRITTEN
            found.append(_filled(template, entities, language, lower=lower))
    return found


def descriptions(half: Half, packages: Sequence[dict[str, Any]], count: int) -> list[Planted]:
    """Real package descriptions, each with one sentence about somebody at its end."""
    draw = random.Random(_SEED[half])
    lines = _INTO_DESCRIPTIONS[_SEED[half] % 2 :: 2]
    entities = [Entities(locale, _SEED[half] + 100) for locale in ("en_US", "de_DE", "fr_FR", "es_ES")]
    found = []
    for n, package in enumerate(draw.sample([p for p in packages if in_half(p, half)], count)):
        text = package["description"][:600].rstrip()
        tail = _filled(lines[n % len(lines)], entities[n % len(entities)], "en", lower=False)
        moved = tuple((kind, a + len(text), b + len(text)) for kind, a, b in tail.spans)
        found.append(Planted(text + tail.text, moved, "en"))
    return found


def in_half(package: dict[str, Any], half: Half) -> bool:
    """Packages of one source are in one half."""
    return (random.Random(package["source"]).random() < 0.5) == (half == "develop")


def negatives(half: Half, count: int) -> list[Planted]:
    """Texts that look personal and are not."""
    read = _read("negatives.yaml")
    lines: list[str] = read[half]["texts"]
    looks = _Looks(read["tech"][half], _SEED[half])
    texts = (_SLOT.sub(lambda m: looks.of(m[1]), lines[n % len(lines)]) for n in range(count))
    return [Planted(text, (), "en") for text in texts]


def _read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


def _filled(template: str, entities: Entities, language: str, *, lower: bool) -> Planted:
    text, spans, at = "", [], 0
    for slot in _SLOT.finditer(template):
        text += template[at : slot.start()]
        made = entities.of(slot[1])
        if slot[1] in KINDS:
            spans.append((KINDS[slot[1]], len(text), len(text) + len(made)))
        text += made
        at = slot.end()
    text += template[at:]
    if lower and len(text.lower()) == len(text):
        return Planted(text.lower(), tuple(spans), language, lower=True)
    return Planted(text, tuple(spans), language)


class _Looks:
    """Draws what looks like personal data."""

    def __init__(self, tech: list[str], seed: int) -> None:
        self._tech = tech
        self._draw = random.Random(seed)

    def of(self, slot: str) -> str:
        """The text for a slot."""
        draw = self._draw
        if slot == "tech":
            return draw.choice(self._tech)
        if slot in ("cls", "snake", "dotted"):
            words = draw.sample(
                ["user", "token", "http", "order", "parser", "grant", "mark", "frank", "page", "rose"], 2
            )
            return {"cls": "".join(map(str.title, words)), "snake": "_".join(words), "dotted": ".".join(words)}[slot]
        if slot == "version":
            return ".".join(str(draw.randrange(30)) for _ in range(draw.choice([2, 3, 3, 4])))
        if slot == "date":
            return f"20{draw.randrange(10, 27)}-{draw.randrange(1, 13):02d}-{draw.randrange(1, 29):02d}"
        if slot == "uuid":
            return "-".join(self._hex(n) for n in (8, 4, 4, 4, 12))
        if slot in ("isbn", "ean"):
            return self._ean("978" if slot == "isbn" else "40")
        if slot == "order":
            return draw.choice(["", "PO-", "SO", "#"]) + "".join(draw.choices(string.digits, k=draw.choice([6, 8, 10])))
        if slot == "tracking":
            return "1Z" + "".join(draw.choices(string.ascii_uppercase + string.digits, k=16))
        if slot in ("port", "number"):
            return str(draw.randrange(1024, 9999) if slot == "port" else draw.randrange(10**5, 10**9))
        return self._hex({"hash": 40, "shorthash": 8, "sha256": 64, "hex": 8}[slot])

    def _hex(self, count: int) -> str:
        return "".join(self._draw.choices("0123456789abcdef", k=count))

    def _ean(self, head: str) -> str:
        digits = head + "".join(self._draw.choices(string.digits, k=12 - len(head)))
        return digits + str(-sum(int(d) * (3 if n % 2 else 1) for n, d in enumerate(digits)) % 10)
