"""What keys, tokens and passwords look like: each provider's format, and what stands under a telling word."""

import re

PROVIDERS = (
    r"sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{16,}",  # OpenAI, Anthropic, OpenRouter
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,}",  # Stripe
    r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}",
    r"gl(?:pat|dt|rt|ptt|cbt|oas|soat|imt|ft|agent)-[\w-]{20,}",  # GitLab
    r"(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # AWS
    r"AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}",  # Google
    r"[\w~.-]{3}8Q~[\w~.-]{31,34}",  # Azure
    r"xox[abeprs]-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{20,}",  # Slack
    r"(?:SK|AC)[0-9a-f]{32}\b",  # Twilio
    r"SG\.[\w-]{16,32}\.[\w-]{16,64}",  # SendGrid
    r"hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}\b|pypi-[\w-]{50,}|dckr_pat_[\w-]{20,}",
    r"do[opr]_v1_[0-9a-f]{64}\b",  # DigitalOcean
    r"\d{8,10}:AA[\w-]{33}\b",  # Telegram
    r"[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,38}",  # Discord
    r"gsk_[A-Za-z0-9]{40,}|xai-[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{37}\b|pplx-[A-Za-z0-9]{40,}",
    r"hvs\.[\w-]{24,}|dapi[0-9a-f]{32}\b|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b|lin_api_[A-Za-z0-9]{40}\b|glsa_\w{32,}",
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}",  # JWT
)
KEY = rf"(?<![\w-])(?:{'|'.join(PROVIDERS)})"

_PEM = r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
PEM = (
    rf"{_PEM}[\s\S]+?-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    rf"{_PEM}(?:(?:\s|\\n)+[A-Za-z0-9+/=]{{16,}})+",  # cut off
)

_WORDS = (
    r"(?i:api[_ -]?key|(?:access|private|account|auth|encryption|signing)[_ -]?key|secret|token|passwor[dt]|passwd|pwd|"
    r"passphrase|passcode|mot de passe|contraseña|senha|wachtwoord)"
)
# `it`: what is secret of a match.
PASSWORDS = (
    rf"{_WORDS}[\"']?\s?(?:[:=]|=>)\s?[\"']?(?P<it>(?![A-Za-z]+\s[a-z])[^\s\"',;&]{{6,}})",
    rf"(?<![A-Za-z]){_WORDS}\s(?:(?:is|was|now|lautet|ist|nicht|mehr|est|es|è|é)\s){{1,3}}(?P<it>(?=\S*\d)(?=\S*[A-Za-z])[^\s\"',;]{{7,}}[^\s\"',;.])",
    r"[?&](?i:access_token|api_?key|auth|client_secret|code|key|pass|password|secret|session|sid|sig|signature|token)="
    r"(?P<it>[^\s&\"'<>#]{6,})",
    r"\b(?i:authorization)[\"']?\s?[:=]\s?[\"']?(?i:bearer|basic|digest|token)\s(?P<it>[\w.~+/-]{6,}=*)",
    # Without the header's name, words are told from tokens by a digit.
    r"\b(?i:bearer)\s(?P<it>(?=\S*\d)[\w.~+/-]{8,}=*)",
    r"\b(?i:basic)\s(?P<it>(?=\S*[\d=])(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+/]{12,}=*)",
)

_CODE = re.compile(
    r"[A-Za-z_][\w.]*[(\[<].*|\$[{(]?[A-Za-z_]\w*[)}]?|[<{%(\[].*[>}%)\]]|(?i:none|null|nil|true|false|undefined|string|required|optional|redacted|"
    r"\*+|x+|process\.env\S*|os\.environ\S*|settings\.\S*|config\.\S*|self\.\S*)[.)\]}]*"
)


def not_code(value: str) -> bool:
    """Whether what stands under a telling word is a value, and no expression, variable, type or placeholder."""
    return not _CODE.fullmatch(value)
