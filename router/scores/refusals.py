"""Whether a text is a refusal, by how it begins.

The table is short on purpose: "I can't find that order" and "I cannot refund this after 30 days" are answers. What
counts is declining the request itself. English only; what it misses is still compared with the reference.
"""

import re

_SORRY = r"(?:(?:i'm|i am|we're|we are)? ?(?:very |so |truly |really )?sorry|i apologi[sz]e|unfortunately)[,.!;:]? ?"
_AS_AN_AI = r"as an ai(?: language)?(?: model| assistant)?[,:]? ?"
_CANNOT = r"(?:i|we)(?: can't| cannot| can not| won't| will not|(?:'m|'re| am| are) (?:unable|not able) to)"
_THAT = r"(?:that|this|it|such)\b"
_WITH = rf"(?:{_THAT}|(?:your|the) request)"

_OPENINGS = (
    rf"(?:{_SORRY})?(?:but )?(?:{_AS_AN_AI})?{_CANNOT} (?:assist|help)(?: you)?(?: with {_WITH}|[.!,]|$)",
    rf"(?:{_SORRY})?(?:but )?(?:{_AS_AN_AI})?{_CANNOT} (?:comply|engage (?:in|with)|fulfil+|do {_THAT})",
    rf"(?:{_SORRY})?(?:but )?(?:i|we) (?:must|have to|need to) (?:decline|refuse)\b",
    rf"(?:{_SORRY})?(?:but )?{_AS_AN_AI}(?:but )?{_CANNOT}\b",
    rf"{_SORRY}(?:but )?{_CANNOT} (?:answer|discuss|provide|share|create|write|generate) {_THAT}",
)
_REFUSAL = re.compile("|".join(f"(?:{opening})" for opening in _OPENINGS))
_LOOKED_AT = 200  # characters


def is_refusal(text: str) -> bool:
    """Whether a text begins as refusals do."""
    opening = " ".join(text[:_LOOKED_AT].lower().replace("\u2019", "'").replace("`", "'").split())
    return _REFUSAL.match(opening) is not None
