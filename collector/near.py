"""The words that say what a number near them is, in the languages that the models know; and dates and ages."""

import re

from collector.writing import END, START, W

_LETTER = f"[{W.replace('_', '')}]"


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!{_LETTER})(?:{'|'.join(alternatives)})(?!{_LETTER})", re.IGNORECASE)


_NO = r"(?:[\s_-]?(?:no|nr|num|number|nummer|numéro|número|numero|id|#)\b)"

CARD = _words(
    r"(?:credit|debit)?[\s_-]?cards?", "karten?(?:nummer)?", "kreditkarte", "carte", "tarjeta", "carta", "kaart",
    "cartão", "visa", "mastercard", "amex", "maestro", "discover", "diners", "jcb", "cvv", "cvc", "ccn?", "pan",
    r"charge[sd]?", r"payments?", "atm", r"expir\w+", r"bill(?:ing|ed)?", r"refund(?:ed)?", r"purchased?",
)  # fmt: skip
HOST = _words(
    r"ip(?:v[46])?", "hosts?", "hostname", "servers?", "address", "adresse", "ping", "ssh", "traceroute",
    "dhcp", "lease", "subnet", "gateway", "router", "dns", "nameserver", "addr",
)  # fmt: skip
PHONE = _words(
    r"(?:tele|cell|hand)?phones?(?: number)?", "tel", "telefon\\w*", "telefono", "téléphone", "teléfono", "telefone",
    "telefoon\\w*", "mobile", "mobil", "cellulare", "celular", "móvil", "movil", "gsm", r"handy(?:nummer|\s?:)", "fax",
    "sms",
    "whatsapp", r"my (?:cell|handy)", r"(?:call|dial|ring|text) (?:me|us|him|her|them|back)(?: \w+)?",
    r"(?:call|dial|ring)\s?$",
    r"(?:call|dial|ring|text|reach|contact|answer)\w*(?: \w+){0,2} (?:at|on)", r"contact\s?:",
    r"(?:my|our|his|her|their|new|home|work|office|cell|registered) number", "my registered",
    r"m(?:on|io|i|ein|ijn|eu) (?:numéro|numero|número|nummer)", "ruf", "rufen", "anrufen", "erreichen", "erreichbar",
    "appele[rz]", "joindre", "ll[aá]m[ea](?:me|r)?", "chiam(?:i|ami|are)", "bel mij", "bellen", "bereiken",
    "ligue", "ligar", "contatto", "contacto", "电话", "電話", "手机", "手機", "携帯", "전화", "휴대폰", "โทร",
)  # fmt: skip
ZIP = (
    rf"(?<!{_LETTER})(?:(?i:zip[\s-]?code|zip\s?[:=]|post(?:al)?[\s-]?code|postleitzahl|plz|code postal|"
    r"c[oó]digo postal)|CAP|CEP)\s?[:=]?\s?"
)
PASSPORT = _words(
    rf"passports?{_NO}?",
    "reisepass(?:nummer)?",
    "passeport",
    "pasaporte",
    "passaporto",
    "passaporte",
    "paspoort\\w*",
    "护照",
    "護照",
    "旅券",
    "パスポート",
    "여권",
)
LICENCE = _words(
    r"driv(?:er|ing)(?:['’]?s)?[\s_-]?licen[cs]e(?:number|no)?", r"licen[cs]e[\s_-]?(?:no|nr|num|number|#)",
    "führerschein\\w*", "permis de conduire", "permiso de conducir", "carn[eé] de conducir", "patente(?: di guida)?",
    "rijbewijs\\w*", "carteira de motorista", "cnh", "(?-i:DL)",
)  # fmt: skip
IDENTITY = _words(
    "ssn", "itin", "(?-i:EIN|TIN|PAN|NIR|NIE|RG|AVS|CPR|SIN)", r"(?:pan|nie|nir|tin)(?: (?:is|es|no|number)|\s?[:=#])",
    r"social[\s_-]?security(?:number|no)?", r"social[\s_-]?insurance", r"national[\s_-]?(?:insurance|id)",
    r"(?:my|your|his|her|their) social", "nino",
    r"tax(?:payer)?[\s_-]?(?:id|no|number|file)\w*", "tfn", "nhs", "medicare", "medicaid", "aadhaar",
    rf"(?:identity|id)[\s_-](?:card|document){_NO}?", r"(?:identity|id|identification)[\s_-](?:no|number)",
    rf"(?:insurance|policy|member(?:ship)?|patient|student|employee|personnel){_NO}", r"health[\s_-]card",
    r"steuer[\s-]?(?:id\w*|nummer|identifikations\w*)", r"(?:renten|sozial|kranken)versicherungs\w+", "svnr", "rvnr",
    r"(?:personal)?ausweis\w*", r"versicherten\w+", r"s[eé]curit[eé] sociale", "nss", "insee",
    r"carte (?:d['’]identit[eé]|vitale)", r"num[eé]ro fiscal", "dni", "nif", r"seguridad social",
    "curp", r"c[oó]dice fiscale", r"c\.\s?f\.?", r"carta d['’]identit[aà]", r"tessera sanitaria", "bsn",
    "burgerservicenummer", "sofinummer", "identiteitskaart\\w*", "cpf", "cnpj", "pesel", "personnummer",
    "henkil[oö]tunnus", "hetu", "nric", "rrn", r"tc kimlik", "ahv", "rijksregisternummer",
    "身份证", "身分證", "マイナンバー", "주민등록번호",
)  # fmt: skip
ACCOUNT = _words(
    rf"(?:bank|checking|savings)?[\s_-]?(?:account|acct|a/c){_NO}\.?", r"routing[\s_-](?:no|number)", r"sort[\s_-]code",
    "kontonummer", "konto-nr", "blz", "bankleitzahl", r"num[eé]ro de compte", r"n[uú]mero de (?:cuenta|conta)",
    "账号", "帳號", "口座番号", "계좌", "numero di conto", "rekeningnummer", r"ag[eê]ncia",
)  # fmt: skip
BIRTH = _words(
    "born", r"d\.?o\.?b\.?", r"(?:date|day|year)[\s_-]?of[\s_-]?birth", r"birth[\s_-]?(?:day|date)?", "birthdate",
    "geboren", "geb", r"geburts\w+", "née?", "naissance", "nac[ií]ó?", "nacid[oa]", "nacimiento", "(?-i:nat[oa])",
    "nascita", "geboorte\\w*", "nasci", "nascid[oa]", "nascimento", "aniversário", "cumpleaños", "compleanno",
    "anniversaire", "生日", "出生日期", "生年月日", "생년월일",
)  # fmt: skip

_MONTH = (
    r"(?:jan|feb|fév|fev|mar|mär|mrt|maa|apr|avr|abr|may|mai|mag|mei|ene|gen|jun|jui|giu|jul|lug|aug|aoû|aou|ago|sep|"
    r"set|oct|okt|ott|out|nov|dec|dez|déc|dic)[^\W\d_]*"
)
DATE = (
    rf"(?i)(?<![{W}./-])(?:\d{{1,4}}([./-])\s?\d{{1,2}}\1\s?\d{{2,4}}|\d{{1,2}}(?:st|nd|rd|th|er|º|\.)?"
    rf"[\s-](?:of |de |di )?{_MONTH}\.?,?[\s-](?:de |del )?\d{{2,4}}|"
    rf"{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})(?![{W}/-]*\d)"
)
_N = rf"(?P<it>{START}\d{{1,3}}{END})"
AGES = (
    rf"(?i)\b(?:aged|my age is|age[:=]|alter[:=]|edad[:=]|età[:=]|leeftijd[:=]|âge ?[:=]) ?{_N}",
    rf"(?i)\b(?:i|he|she|son|daughter|wife|husband|mother|father|who|and)(?:['’](?:m|s)| am| is| was|) {_N}"
    r"(?= years? old| yrs? old| y/o|-years?-old)",
    rf"(?i){_N}(?= ?y/o\b| jahre alt\b| jaar oud\b)",
    rf"(?i)\b(?:turn(?:s|ed|ing)?|retires? at|i['’]m|he['’]s|she['’]s) {_N}"
    r"(?=\s*(?:[,.!?;]|on\b|and\b|next\b|this\b|today\b|tomorrow\b|years?\b|$)(?! ?%))",
    rf"(?i)\b(?:ai|as|(?<!y )a|avait|aura|aurai|fête(?:ra)?|tengo|tienes?|tiene|cumple|cumplo|ho|hai|ha|compie|compio|"
    rf"tenho|tem|fez|faz|word|wordt) {_N}(?= (?:ans|años|anni|anos|jaar)\b)",
)
