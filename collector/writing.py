"""How what has a form may be written: between letters of any script, with other dashes and spaces."""

import re

# Inside a class of a pattern: what makes a number or a key next to it a longer one. Scripts that write without spaces,
# or join their small words to the next, are not among them: 卡号4111... is a card, and so is 4111...です.
W = r"\dA-Za-z_\u00aa\u00b5\u00ba\u00c0-\u052f\u1e00-\u1fff"
START, END = rf"(?<![{W}])", rf"(?![{W}])"

_AS = {
    **dict.fromkeys((0x00A0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " "),
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0xFE63, 0xFF0D), "-"),
    **{0xFF10 + n: str(n) for n in range(10)},
    0xFF0E: ".",
    0xFF1A: ":",
}
_OTHER = re.compile(f"[{''.join(map(re.escape, map(chr, _AS)))}]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")


def plainly(text: str) -> tuple[str, list[int] | None]:
    """A text with plain dashes, spaces and digits, and without invisible signs; and where its characters and its end
    stand in the text, or None where they stand at the same places."""
    if text.isascii():
        return text, None
    plain = text.translate(_AS) if _OTHER.search(text) else text
    if not _INVISIBLE.search(plain):
        return plain, None
    at = [n for n, sign in enumerate(plain) if not _INVISIBLE.match(sign)]
    return "".join(plain[n] for n in at), [*at, len(text)]
