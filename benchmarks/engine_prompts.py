"""What `engine.py` asks all engines."""

import random
from string import ascii_letters


def story(number: int) -> list[dict[str, str]]:
    """The n-th request: a long answer. No two begin alike: what an engine keeps of the one helps with no other."""
    name = "".join(random.Random(number).choices(ascii_letters, k=12))
    text = f"Write a long story about a traveller who visits {number + 2} towns, and describe each of them in detail."
    return [{"role": "system", "content": f"{name} is your name. You tell stories."}, {"role": "user", "content": text}]
