"""What an operator says about scrubbing: languages, and what is done with each kind of personal data."""

from collections.abc import Mapping
from typing import Literal, get_args

Action = Literal["surrogate", "placeholder", "hash", "drop", "keep"]
Language = Literal["en", "de", "fr", "es", "it", "nl", "pt"]

ACTIONS: tuple[str, ...] = get_args(Action)
LANGUAGES: tuple[Language, ...] = get_args(Language)

# Every kind that the scrubber tells apart.
ENTITIES = (
    "AGE", "BANK_ACCOUNT", "BUILDING_NUMBER", "CARD", "CITY", "CRYPTO_ADDRESS", "DATE_OF_BIRTH", "DRIVING_LICENCE",
    "EMAIL", "IBAN", "ID_NUMBER", "IP_ADDRESS", "MAC_ADDRESS", "PASSPORT", "PASSWORD", "PERSON", "PHONE", "SECRET",
    "SSN", "STREET", "URL_CREDENTIALS", "ZIP_CODE",
)  # fmt: skip
NEVER_KEPT = frozenset(("PASSWORD", "SECRET", "URL_CREDENTIALS"))
DEFAULT = "default"


def check_actions(actions: Mapping[str, str]) -> None:
    """Raises ValueError: what is wrong with `{default: ACTION, ENTITY: ACTION, ...}`, and what would be right."""
    for entity, action in actions.items():
        if entity != DEFAULT and entity not in ENTITIES:
            raise ValueError(f"{entity!r} is no kind of personal data; there are default, {', '.join(ENTITIES)}")
        if action == "keep" and (entity == DEFAULT or entity in NEVER_KEPT):
            raise ValueError(
                f"{entity}: keep is refused; "
                + ("name each kind that may stay" if entity == DEFAULT else "keys and passwords never stay in the log")
            )
