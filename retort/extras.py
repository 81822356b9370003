"""Which optional parts of Retort are installed: a gateway alone needs none of them."""

import re
from importlib import metadata

from retort.errors import StartError

DISTRIBUTION = "retort-gateway"


def need(command: str, *extras: str) -> None:
    """Raise StartError, naming what would install it, where a package of these extras is missing."""
    missing = sorted(name for name in _packages(extras) if not _installed(name))
    if missing:
        raise StartError(
            f"`retort {command}` needs more than the gateway alone: pip install "
            f"'{DISTRIBUTION}[{','.join(extras)}]' (missing: {', '.join(missing)})"
        )


def _packages(extras: tuple[str, ...]) -> set[str]:
    found = set()
    for requirement in metadata.requires(DISTRIBUTION) or ():
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", requirement)
        if name and extra and extra[1] in extras:
            found.add(name[0])
    return found


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
