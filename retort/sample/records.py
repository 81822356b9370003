"""The sample task: which language community does a Debian package belong to? Real records, shipped with Retort."""

import gzip
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import msgspec

SYSTEM_PROMPT = (
    "Which community does this Debian package belong to? Answer with JSON: "
    '{"community": "perl|python|javascript|java|ruby|haskell|r|other"}'
)

_COMMUNITY = {
    "perl": "perl",
    "python": "python",
    "javascript": "javascript",
    "java": "java",
    "ruby": "ruby",
    "haskell": "haskell",
    "gnu-r": "r",
}
COMMUNITIES = (*_COMMUNITY.values(), "other")


class Package(msgspec.Struct, frozen=True):
    """One package of Debian's index."""

    package: str
    section: str
    synopsis: str

    @property
    def question(self) -> str:
        """What the app sends as the user's message."""
        return f"{self.package}: {self.synopsis}"

    @property
    def messages(self) -> list[dict[str, str]]:
        """The whole conversation of one request."""
        return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": self.question}]

    @property
    def answer(self) -> str:
        """What the teacher answers, derived from the package's section."""
        return json.dumps({"community": _COMMUNITY.get(self.section, "other")})


@cache
def packages() -> tuple[Package, ...]:
    """8,000 records, ordered by name."""
    data = gzip.decompress((files("retort.sample") / "packages.jsonl.gz").read_bytes())
    decode = msgspec.json.Decoder(Package).decode
    return tuple(decode(line) for line in data.splitlines())


@cache
def by_name() -> Mapping[str, Package]:
    """The records by package name."""
    return {p.package: p for p in packages()}


def answer(question: str) -> str:
    """The teacher's answer to a user's message `name: synopsis`; a package it doesn't know is of no community."""
    known = by_name().get(question.partition(":")[0].strip())
    return known.answer if known else json.dumps({"community": "other"})
