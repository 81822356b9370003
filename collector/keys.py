"""What keys, tokens and passwords look like: each provider's format, and what stands under a telling word."""

import re

from collector.writing import END, START, W

PROVIDERS = (
    r"sk-(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[A-Z])[A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic, OpenRouter
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,}",  # Stripe
    r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}",
    r"gl(?:pat|dt|rt|ptt|cbt|oas|soat|imt|ft|agent)-[A-Za-z0-9_-]{20,}",  # GitLab
    rf"(?:AKIA|ASIA)[A-Z0-9]{{16}}{END}",  # AWS
    r"AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,}",  # Google
    r"[A-Za-z0-9_~.-]{3}8Q~[A-Za-z0-9_~.-]{31,34}",  # Azure
    r"xox[abeprs]-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{20,}",  # Slack
    rf"(?:SK|AC)[0-9a-f]{{32}}{END}",  # Twilio
    r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}",  # SendGrid
    rf"hf_[A-Za-z0-9]{{30,}}|npm_[A-Za-z0-9]{{36}}{END}|pypi-[A-Za-z0-9_-]{{50,}}|dckr_pat_[A-Za-z0-9_-]{{20,}}",
    rf"do[opr]_v1_[0-9a-f]{{64}}{END}",  # DigitalOcean
    rf"\d{{8,10}}:AA[A-Za-z0-9_-]{{33}}{END}",  # Telegram
    r"[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}",  # Discord
    rf"gsk_[A-Za-z0-9]{{40,}}|xai-[A-Za-z0-9]{{40,}}|r8_[A-Za-z0-9]{{37}}{END}|pplx-[A-Za-z0-9]{{40,}}",
    rf"hvs\.[A-Za-z0-9_-]{{24,}}|dapi[0-9a-f]{{32}}{END}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{{32}}{END}",
    rf"lin_api_[A-Za-z0-9]{{40}}{END}|glsa_[A-Za-z0-9_]{{32,}}",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",  # JWT
)
KEY = rf"(?<![{W}-])(?:{'|'.join(PROVIDERS)})"
WEBHOOKS = (
    r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<it>[A-Za-z0-9/_-]{10,})",
    r"discord(?:app)?\.com/api/(?:v\d+/)?webhooks/(?P<it>\d+/[A-Za-z0-9_-]{20,})",
    r"webhook\.office\.com/webhookb2/(?P<it>[A-Za-z0-9@/_-]{20,})",
)

_PEM = r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
PEM = (
    rf"{_PEM}[\s\S]+?-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    rf"{_PEM}(?:(?:\s|\\n)+[A-Za-z0-9+/=]{{16,}})+",  # cut off
)

_WORDS = (
    r"(?i:api[_ -]?key|(?:access|private|account|auth|encryption|signing)[_ -]?key|secret|token|passwor[dt]|passwd|pwd|"
    r"passphrase|passcode|mot de passe|contraseña|senha|wachtwoord)"
)
# In scripts without spaces, or that join small words to the next, a password is what is ASCII.
_JOINED_WORDS = "(?:密码|密碼|口令|パスワード|暗証番号|비밀번호|패스워드|암호|รหัสผ่าน)"
_PARTICLES = "(?:是|为|為|は|が|는|은|이|가|คือ|เป็น)"
_ASCII = r"[!#-%(-+\--:<-~]"  # but for what ends a value
# `it`: what is secret of a match.
PASSWORDS = (
    rf"{_WORDS}[\"']?\s?(?:[:=]|=>)\s?[\"']?(?P<it>(?![A-Za-z]+\s[a-z])[^\s\"',;&]{{6,}})",
    rf"(?<![A-Za-z]){_WORDS}\s(?:(?:is|was|now|lautet|ist|nicht|mehr|est|es|è|é)\s?:?\s){{1,3}}"
    r"(?P<it>(?=\S*\d)(?=\S*[A-Za-z])[^\s\"',;]{4,}[^\s\"',;.!?)])",
    # PASS: begins a test's result, too, and `pass:` what a filter lets through.
    rf"{START}(?:pass|Pass|(?i:pw))\s?[:=]\s?(?!\d+[A-Za-z]+{END})(?P<it>(?=[^\s]*[A-Za-z])(?=[^\s]*\d)"
    r"[^\s\"',;&/_.()<>\[\]]{6,})(?=[\"',;&.!?)]?(?:\s|$))",
    rf"{_JOINED_WORDS}[\"']?\s?[:=\uff1d]\s?[\"']?(?P<it>{_ASCII}{{6,}})",
    rf"{_JOINED_WORDS}\s?{_PARTICLES}\s?[\"']?(?P<it>(?={_ASCII}*\d){_ASCII}{{6,}})",
    r"[?&](?i:access_token|api_?key|auth|client_secret|code|key|pass|password|secret|session|sid|sig|signature|token)="
    r"(?P<it>[^\s&\"'<>#]{6,})",
    rf"{START}(?i:authorization)[\"']?\s?[:=]\s?[\"']?(?i:bearer|basic|digest|token)\s(?P<it>[A-Za-z0-9_.~+/-]{{6,}}=*)",
    # Without the header's name, words are told from tokens by a digit.
    rf"{START}(?i:bearer)\s(?P<it>(?=\S*\d)[A-Za-z0-9_.~+/-]{{8,}}=*)",
    rf"{START}(?i:basic)\s(?P<it>(?=\S*[\d=])(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+/]{{12,}}=*)",
)

_CODE = re.compile(
    r"[A-Za-z_][\w.]*[(\[<].*|\$[{(]?[A-Za-z_]\w*[)}]?|[<{%(\[].*[>}%)\]]|(?i:none|null|nil|true|false|undefined|string|required|optional|redacted|"
    r"\*+|x+|process\.env\S*|os\.environ\S*|settings\.\S*|config\.\S*|self\.\S*)[.)\]}]*"
)


def not_code(value: str) -> bool:
    """Whether what stands under a telling word is a value, and no expression, variable, type or placeholder."""
    return not _CODE.fullmatch(value)
