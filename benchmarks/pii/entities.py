"""What is planted: entities of every kind, drawn with a fixed seed. None belongs to anybody by intent."""

import base64
import hashlib
import json
import random
import string
from collections.abc import Callable

from faker import Faker

LOCALES = {
    "en": ("en_US", "en_GB", "en_IN"),
    "de": ("de_DE",),
    "fr": ("fr_FR",),
    "es": ("es_ES",),
    "it": ("it_IT",),
    "nl": ("nl_NL",),
    "pt": ("pt_BR",),
    "forms": ("en_US", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL"),
    "json": ("en_US", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL"),
    "unspaced": ("en_US", "de_DE"),
}
SECRETS = ("key", "jwt", "pem", "password", "token", "userinfo", "awskey", "awssecret", "btc", "eth")

# Slot of a template -> what it is counted as. Structured kinds have a form or a telling word; names have neither.
KINDS = {
    "person": "PERSON", "first": "PERSON", "last": "PERSON",
    "address": "ADDRESS", "street": "ADDRESS", "zip": "ADDRESS", "city": "PLACE",
    "phone": "PHONE", "email": "EMAIL", "card": "CARD", "iban": "IBAN", "account": "ACCOUNT",
    "id": "NATIONAL_ID", "taxint": "NATIONAL_ID", "passport": "PASSPORT", "licence": "DRIVING_LICENCE",
    "dob": "DATE_OF_BIRTH", "age": "AGE",
    "ip": "IP_ADDRESS", "ip6": "IP_ADDRESS", "mac": "MAC_ADDRESS",
    "key": "SECRET", "jwt": "SECRET", "pem": "SECRET", "password": "SECRET", "token": "SECRET",
    "awskey": "SECRET", "awssecret": "SECRET", "userinfo": "URL_CREDENTIALS",
    "btc": "CRYPTO_ADDRESS", "eth": "CRYPTO_ADDRESS",
}  # fmt: skip
STRUCTURED = tuple(sorted(set(KINDS.values()) - {"PERSON", "ADDRESS", "PLACE", "AGE"}))

_ID_NAMES = {
    "en_US": ("SSN", "social security number"), "en_GB": ("National Insurance number", "NHS number"),
    "en_IN": ("Aadhaar", "PAN"), "de_DE": ("Steuer-ID", "Rentenversicherungsnummer"),
    "fr_FR": ("numéro de sécurité sociale", "NIR"), "es_ES": ("DNI", "NIE"), "it_IT": ("codice fiscale", "c.f."),
    "nl_NL": ("BSN", "burgerservicenummer"), "pt_BR": ("CPF", "CPF"),
}  # fmt: skip
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_DATES = {"en_US": "%m/%d/%Y", "en_GB": "%d %B %Y", "en_IN": "%d-%m-%Y", "de_DE": "%d.%m.%Y", "nl_NL": "%d-%m-%Y"}


class Entities:
    """Draws for one locale."""

    def __init__(self, locale: str, seed: int) -> None:
        self.locale = locale
        self._fake = Faker(locale)
        self._fake.seed_instance(seed)
        self._draw = random.Random(seed)
        self._id_name = _ID_NAMES[locale][0]

    def of(self, slot: str) -> str:
        """The text for a slot of a template; `idname` is the name of the `id` that comes next."""
        if slot == "idname":
            self._id_name = self._draw.choice(_ID_NAMES[self.locale])
            return self._id_name
        made: str = getattr(self, f"_{slot}")()
        return made

    def _some(self, letters: str, count: int) -> str:
        return "".join(self._draw.choices(letters, k=count))

    def _person(self) -> str:
        return f"{self._fake.first_name()} {self._fake.last_name()}"

    def _first(self) -> str:
        return str(self._fake.first_name())

    def _last(self) -> str:
        return str(self._fake.last_name())

    def _street(self) -> str:
        return str(self._fake.street_address()).replace("\n", ", ")

    def _city(self) -> str:
        return str(self._fake.city())

    def _zip(self) -> str:
        return str(self._fake.postcode())

    def _address(self) -> str:
        if self.locale in ("en_US", "en_IN"):
            return f"{self._street()}, {self._city()} {self._zip()}"
        if self.locale == "en_GB":
            return f"{self._street()}, {self._city()}, {self._zip()}"
        return f"{self._street()}, {self._zip()} {self._city()}"

    def _phone(self) -> str:
        made = str(self._fake.phone_number())
        while sum(c.isdigit() for c in made) < 9:  # some locales draw service numbers
            made = str(self._fake.phone_number())
        return made

    def _email(self) -> str:
        return str(self._fake.email())

    def _card(self) -> str:
        made = str(self._fake.credit_card_number(self._draw.choice(["visa16", "mastercard", "amex", "discover"])))
        grouped = " ".join(made[i : i + 4] for i in range(0, len(made), 4))
        return self._draw.choice([made, grouped])

    def _iban(self) -> str:
        made = str(self._fake.iban())
        return self._draw.choice([made, " ".join(made[i : i + 4] for i in range(0, len(made), 4))])

    def _account(self) -> str:
        return self._some(string.digits, self._draw.choice([8, 9, 10, 12]))

    def _passport(self) -> str:
        return self._draw.choice(["X", "C", "K", "P", ""]) + self._some("123456789", 8)

    def _licence(self) -> str:
        letters = string.ascii_uppercase
        return self._draw.choice(
            [
                self._some(letters, 1) + self._some(string.digits, 7),
                self._some(letters, 1) + "-".join(("", self._some(string.digits, 3), self._some(string.digits, 4)))[1:],
                self._some(string.digits, 9),
                self._some(letters, 5) + self._some(string.digits, 6) + self._some(letters, 2) + "9IJ",
            ]
        )

    def _dob(self) -> str:
        date = self._fake.date_of_birth(minimum_age=18, maximum_age=90)
        return str(date.strftime(self._draw.choice([_DATES.get(self.locale, "%d/%m/%Y"), "%Y-%m-%d"])))

    def _age(self) -> str:
        return str(self._draw.randint(18, 95))

    def _ip(self) -> str:
        return str(self._fake.ipv4_public())

    def _ip6(self) -> str:
        whole = str(self._fake.ipv6())
        return self._draw.choice([whole, f"2a02:{self._some('123456789', 3)}:1f::{self._some('123456789abcdef', 2)}"])

    def _mac(self) -> str:
        return str(self._fake.mac_address()).replace(":", self._draw.choice([":", "-"]))

    def _key(self) -> str:
        word = string.ascii_letters + string.digits
        return self._draw.choice(
            [
                lambda: "sk-proj-" + self._some(word + "_-", 47) + "a",
                lambda: "sk-ant-api03-" + self._some(word + "_-", 92) + "AA",
                lambda: "ghp_" + self._some(word, 36),
                lambda: "github_pat_" + self._some(word, 22) + "_" + self._some(word, 59),
                lambda: "glpat-" + self._some(word, 20),
                lambda: "AIza" + self._some(word, 35),
                lambda: f"xoxb-{self._some(string.digits, 12)}-{self._some(string.digits, 12)}-{self._some(word, 24)}",
                lambda: "sk_live_" + self._some(word, 24),
                lambda: "SK" + self._some("0123456789abcdef", 32),
                lambda: f"SG.{self._some(word, 22)}.{self._some(word, 43)}",
                lambda: "hf_" + self._some(word, 34),
                lambda: "npm_" + self._some(word, 36),
                lambda: "pypi-AgEIcHlwaS5vcmc" + self._some(word + "_-", 150) + "a",
                lambda: "dop_v1_" + self._some("0123456789abcdef", 64),
                lambda: f"{self._some('123456789', 10)}:AA{self._some(word + '_-', 32)}x",
                lambda: f"M{self._some(word, 23)}.{self._some(word, 6)}.{self._some(word, 27)}",
            ]
        )()

    def _jwt(self) -> str:
        def part(value: object) -> str:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

        head = part({"alg": "HS256", "typ": "JWT"})
        return f"{head}.{part({'sub': self._some(string.digits, 9)})}.{self._some(string.ascii_letters, 43)}"

    def _pem(self) -> str:
        kind = self._draw.choice(["RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"])
        lines = "\n".join(self._some(string.ascii_letters + string.digits + "+/", 64) for _ in range(4))
        return f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----"

    def _password(self) -> str:
        return self._some(string.ascii_letters + string.digits + "!#$%*+-_?", 11) + self._some(string.digits, 1)

    def _token(self) -> str:
        return self._some(string.ascii_letters + string.digits, 32)

    def _userinfo(self) -> str:
        return f"{self._fake.user_name()}:{self._some(string.ascii_letters + string.digits, 14)}"

    def _awskey(self) -> str:
        return "AKIA" + self._some(string.ascii_uppercase + "234567", 16)

    def _awssecret(self) -> str:
        return self._some(string.ascii_letters + string.digits + "/+", 39) + "a"

    def _btc(self) -> str:
        return self._draw.choice([self._btc_base58, self._btc_bech32])()

    def _btc_base58(self) -> str:
        data = bytes([self._draw.choice([0, 5])]) + self._draw.randbytes(20)
        data += hashlib.sha256(hashlib.sha256(data).digest()).digest()[:4]
        number, made = int.from_bytes(data, "big"), ""
        while number:
            number, rest = divmod(number, 58)
            made = _BASE58[rest] + made
        return "1" * (len(data) - len(data.lstrip(b"\0"))) + made

    def _btc_bech32(self) -> str:
        words = [0, *(self._draw.randrange(32) for _ in range(32))]
        head = [3, 3, 0, 2, 3]  # "bc", expanded
        rest = _polymod([*head, *words, 0, 0, 0, 0, 0, 0]) ^ 1
        return "bc1" + "".join(_BECH32[w] for w in [*words, *((rest >> 5 * (5 - i)) & 31 for i in range(6))])

    def _eth(self) -> str:
        return "0x" + self._some("0123456789abcdefABCDEF", 40)

    def _id(self) -> str:
        name, fake = self._id_name, self._fake
        makers: dict[str, Callable[[], str]] = {
            "NHS number": self._nhs, "Aadhaar": lambda: fake.aadhaar_id(), "PAN": self._pan,
            "Steuer-ID": self._steuer_id, "Rentenversicherungsnummer": lambda: fake.rvnr(),
            "DNI": lambda: fake.nif(), "NIE": lambda: fake.nie(), "CPF": lambda: fake.cpf(),
            "National Insurance number": lambda: self._draw.choice("ABCEGHJ") + self._draw.choice("ABCEGHJ")
            + "".join(f" {self._some(string.digits, 2)}" for _ in range(3)) + f" {self._draw.choice('ABCD')}",
        }  # fmt: skip
        return str(makers.get(name, fake.ssn)())

    def _taxint(self) -> str:
        return str(self._draw.randrange(10**8, 10**9))

    def _nhs(self) -> str:
        while True:
            digits = [int(c) for c in self._some(string.digits, 9)]
            check = 11 - sum(d * w for d, w in zip(digits, range(10, 1, -1), strict=True)) % 11
            if check != 10:
                whole = "".join(map(str, [*digits, check % 11]))
                return f"{whole[:3]} {whole[3:6]} {whole[6:]}"

    def _pan(self) -> str:
        return self._some(string.ascii_uppercase, 3) + "P" + self._some(string.ascii_uppercase, 1) + self._some(
            string.digits, 4
        ) + self._some(string.ascii_uppercase, 1)  # fmt: skip

    def _steuer_id(self) -> str:
        digits = self._draw.sample(range(1, 10), 9)
        digits.insert(self._draw.randrange(1, 9), digits[0])
        product = 10
        for d in digits:
            product = ((d + product) % 10 or 10) * 2 % 11
        return "".join(map(str, digits)) + str((11 - product) % 10)


def _polymod(values: list[int]) -> int:
    """Bech32's checksum (BIP 173)."""
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if (top >> i) & 1 else 0
    return check
