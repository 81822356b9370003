"""A thousand values that must not be found afterwards, in sentences of seven languages and alone under a JSON key."""

import base64
import json
import random
import string
from collections.abc import Callable
from typing import Any

import msgspec
from faker import Faker

LOCALES = {"en": "en_US", "de": "de_DE", "fr": "fr_FR", "es": "es_ES", "it": "it_IT", "nl": "nl_NL", "zh": "en_US"}
COUNTS = {
    "email": 70, "card": 70, "iban": 70, "ssn": 50, "phone": 70, "ip": 50, "mac": 50, "openai key": 50,
    "github token": 50, "jwt": 50, "birth": 40, "passport": 40, "account": 40, "name": 150, "address": 150,
}  # fmt: skip
KEYS = {
    "email": "contact", "card": "card", "iban": "iban", "ssn": "ssn", "phone": "phone", "ip": "client", "mac": "device",
    "openai key": "note", "github token": "value", "jwt": "session", "birth": "date_of_birth",
    "account": "accountNumber", "passport": "passport_number", "name": "full_name", "address": "address",
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
TELLING = {
    "en": {"birth": "I was born on {}.", "passport": "My passport is {}.", "account": "The account number is {}."},
    "de": {"birth": "Ich bin am {} geboren.", "passport": "Reisepass {}.", "account": "Kontonummer {}."},
    "fr": {"birth": "Date de naissance : {}.", "passport": "Passeport {}.", "account": "Numéro de compte {}."},
    "es": {"birth": "Fecha de nacimiento: {}.", "passport": "Pasaporte {}.", "account": "Número de cuenta {}."},
    "it": {"birth": "Data di nascita: {}.", "passport": "Passaporto {}.", "account": "Numero di conto {}."},
    "nl": {"birth": "Geboortedatum: {}.", "passport": "Paspoort {}.", "account": "Rekeningnummer {}."},
    "zh": {"birth": "生日{}没错", "passport": "护照{}没错", "account": "账号{}没错"},
}
PLAIN = {
    "en": "Here it is: {} - thanks.", "de": "Hier ist es: {} - danke.", "fr": "Le voici : {} - merci.",
    "es": "Aquí está: {} - gracias.", "it": "Eccolo: {} - grazie.", "nl": "Hier is het: {} - bedankt.",
    "zh": "在这里{}谢谢",
}  # fmt: skip


class Canary(msgspec.Struct, frozen=True):
    """One planted value, and the sentence that holds it."""

    kind: str
    value: str
    sentence: str

    @property
    def leaf(self) -> dict[str, Any]:
        """The value alone, under a key; an account's number as a number."""
        return {KEYS[self.kind]: int(self.value) if self.kind == "account" else self.value}


def canaries(seed: int = 11) -> list[Canary]:
    """All of them, shuffled; no value twice."""
    draw, fakes = random.Random(seed), {language: Faker(locale) for language, locale in LOCALES.items()}
    for fake in fakes.values():
        fake.seed_instance(seed)
    found: dict[str, Canary] = {}
    for kind, count in COUNTS.items():
        made = 0
        while made < count:
            languages = list(SENTENCES if kind in UNSTRUCTURED else LOCALES)  # the models don't read all
            language = languages[made % len(languages)]
            value = _MAKERS[kind](fakes[language], draw)
            if value in found or "\n" in value:
                continue
            said = SENTENCES.get(language, {}) | TELLING[language]
            sentence = said.get(kind, PLAIN[language]).format(value)
            found[value] = Canary(kind, value, sentence)
            made += 1
    every = list(found.values())
    draw.shuffle(every)
    return every


def _letters(draw: random.Random, count: int) -> str:
    return "".join(draw.choices(string.ascii_letters + string.digits, k=count))


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _ip(fake: Faker) -> str:
    """Without a word beside it four small numbers are taken for a version (docs/scrubbing.md)."""
    made = str(fake.ipv4_public())
    while max(map(int, made.split("."))) < 32:
        made = str(fake.ipv4_public())
    return made


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
    "ip": lambda fake, draw: _ip(fake),
    "mac": lambda fake, draw: fake.mac_address(),
    "openai key": lambda fake, draw: "sk-proj-" + _letters(draw, 40),
    "github token": lambda fake, draw: "ghp_" + _letters(draw, 36),
    "jwt": lambda fake, draw: f"{_part({'alg': 'HS256'})}.{_part({'sub': _letters(draw, 9)})}.{_letters(draw, 43)}",
    # No day of a surrogate's, which are 1 to 12: of 80 drawn dates one would be another canary's now and then.
    "birth": lambda fake, draw: f"{draw.randint(1930, 2009)}-{draw.randint(1, 12):02d}-{draw.randint(13, 28):02d}",
    "passport": lambda fake, draw: f"{draw.choice('CKPX')}{draw.randint(10**7, 10**8 - 1)}",
    "account": lambda fake, draw: str(draw.randint(10**9, 10**10 - 1)),
    "name": lambda fake, draw: f"{fake.first_name()} {fake.last_name()}",
    "address": lambda fake, draw: f"{fake.street_name()} {fake.building_number()}, {fake.city()}",
}
