"""A thousand values that must not be found afterwards, in sentences of six languages."""

import base64
import json
import random
import string
from collections.abc import Callable
from typing import Any

import msgspec
from faker import Faker

LOCALES = {"en": "en_US", "de": "de_DE", "fr": "fr_FR", "es": "es_ES", "it": "it_IT", "nl": "nl_NL"}
COUNTS = {
    "email": 100, "card": 80, "iban": 80, "ssn": 60, "phone": 100, "ip": 60, "mac": 60, "openai key": 60,
    "github token": 50, "jwt": 50, "name": 150, "address": 150,
}  # fmt: skip
UNSTRUCTURED = ("name", "address")
SENTENCES = {
    "en": {"name": "My name is {}, can you help me?", "address": "I live at {}, please send it there."},
    "de": {"name": "Ich heiße {}, können Sie mir helfen?", "address": "Ich wohne in {}, bitte dorthin senden."},
    "fr": {"name": "Je m'appelle {}, pouvez-vous m'aider ?", "address": "J'habite au {}, merci de l'envoyer là."},
    "es": {"name": "Me llamo {}, ¿puede ayudarme?", "address": "Vivo en {}, por favor envíelo allí."},
    "it": {"name": "Mi chiamo {}, mi può aiutare?", "address": "Abito in {}, per favore lo spedisca lì."},
    "nl": {"name": "Ik heet {}, kunt u mij helpen?", "address": "Ik woon in {}, stuur het daarheen."},
}
PLAIN = {
    "en": "Here it is: {} - thanks.", "de": "Hier ist es: {} - danke.", "fr": "Le voici : {} - merci.",
    "es": "Aquí está: {} - gracias.", "it": "Eccolo: {} - grazie.", "nl": "Hier is het: {} - bedankt.",
}  # fmt: skip


class Canary(msgspec.Struct, frozen=True):
    """One planted value, and the sentence that holds it."""

    kind: str
    value: str
    sentence: str


def canaries(seed: int = 11) -> list[Canary]:
    """All of them, shuffled; no value twice."""
    draw, fakes = random.Random(seed), {language: Faker(locale) for language, locale in LOCALES.items()}
    for fake in fakes.values():
        fake.seed_instance(seed)
    found: dict[str, Canary] = {}
    for kind, count in COUNTS.items():
        made = 0
        while made < count:
            language = list(LOCALES)[made % len(LOCALES)]
            value = _MAKERS[kind](fakes[language], draw)
            if value in found or "\n" in value:
                continue
            sentence = SENTENCES[language].get(kind, PLAIN[language]).format(value)
            found[value] = Canary(kind, value, sentence)
            made += 1
    every = list(found.values())
    draw.shuffle(every)
    return every


def _letters(draw: random.Random, count: int) -> str:
    return "".join(draw.choices(string.ascii_letters + string.digits, k=count))


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _phone(_: Faker, draw: random.Random) -> str:
    numbers = (
        lambda: f"+1 {draw.choice(['415', '212', '303'])} {draw.randint(201, 999)} {draw.randint(1000, 9999)}",
        lambda: f"+49 171 {draw.randint(1000000, 9999999)}",
        lambda: f"+33 6 {' '.join(f'{draw.randint(10, 99)}' for _ in range(4))}",
        lambda: f"+44 7911 {draw.randint(100000, 999999)}",
    )
    return draw.choice(numbers)()


_MAKERS: dict[str, Callable[[Faker, random.Random], str]] = {
    "email": lambda fake, draw: f"{fake.user_name()}{draw.randint(10, 9999)}@{fake.domain_name()}",
    "card": lambda fake, draw: fake.credit_card_number(draw.choice(["visa16", "mastercard", "amex"])),
    "iban": lambda fake, draw: fake.iban(),
    "ssn": lambda fake, draw: f"{draw.randint(100, 665)}-{draw.randint(10, 99)}-{draw.randint(1000, 9999)}",
    "phone": _phone,
    "ip": lambda fake, draw: fake.ipv4_public(),
    "mac": lambda fake, draw: fake.mac_address(),
    "openai key": lambda fake, draw: "sk-proj-" + _letters(draw, 40),
    "github token": lambda fake, draw: "ghp_" + _letters(draw, 36),
    "jwt": lambda fake, draw: f"{_part({'alg': 'HS256'})}.{_part({'sub': _letters(draw, 9)})}.{_letters(draw, 43)}",
    "name": lambda fake, draw: f"{fake.first_name()} {fake.last_name()}",
    "address": lambda fake, draw: f"{fake.street_name()} {fake.building_number()}, {fake.city()}",
}
