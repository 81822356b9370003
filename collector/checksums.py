"""The arithmetic that tells a real number from one that only looks like it. Pure; text in, truth out."""

import hashlib
import ipaddress
import re

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

# Issuers' first digits, and how many they give (ISO/IEC 7812). Visa's 13 digits are an EAN's, too, and no longer given.
_ISSUERS = re.compile(
    r"4\d{15}|4\d{18}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|"
    r"35\d{14}|(?:1800|2131)\d{11}|6(?:011|4[4-9]\d|5\d\d|2\d\d)\d{12,15}|(?:50|5[6-9]|6[0-9])\d{14}|"
    r"(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}"
)


def luhn(text: str) -> bool:
    """Payment cards: 12 to 19 digits of a known issuer's range whose Luhn sum is a multiple of 10 (ISO/IEC 7812)."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 12 <= len(digits) <= 19 or digits[0] not in (1, 2, 3, 4, 5, 6) or len(set(digits)) == 1:
        return False
    return _luhn_sum(digits) % 10 == 0


def _luhn_sum(digits: list[int]) -> int:
    return sum(digits[-1::-2]) + sum(sum(divmod(2 * d, 10)) for d in digits[-2::-2])


def card(text: str) -> bool:
    """A card number that needs no word beside it: an issuer's digits, as many as it gives, and a right Luhn sum."""
    return bool(_ISSUERS.fullmatch(re.sub(r"\D", "", text))) and luhn(text)


def iban(text: str) -> bool:
    """International bank account numbers: the remainder modulo 97 is 1 (ISO 13616)."""
    plain = re.sub(r"[\s-]", "", text).upper()
    if not 15 <= len(plain) <= 34 or not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]+", plain):
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def ssn(text: str) -> bool:
    """US social security numbers: areas 000, 666 and 900 to 999, group 00 and serial 0000 are never given."""
    area, group, serial = re.split(r"\D", text)
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def nir(text: str) -> bool:
    """French social security numbers: the last two digits are 97 less the rest modulo 97; Corsica's 2A and 2B count as
    19 and 18."""
    plain = re.sub(r"\s", "", text).upper().replace("2A", "19").replace("2B", "18")
    return plain.isdigit() and len(plain) == 15 and 97 - int(plain[:13]) % 97 == int(plain[13:])


def cpf(text: str) -> bool:
    """Brazilian persons' tax numbers: two check digits modulo 11."""
    digits = [int(c) for c in text if c.isdigit()]
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    return all(
        sum(d * w for d, w in zip(digits[:n], range(n + 1, 1, -1), strict=True)) * 10 % 11 % 10 == digits[n]
        for n in (9, 10)
    )


def ahv(text: str) -> bool:
    """Swiss social security numbers: 756, and EAN-13's check digit."""
    digits = [int(c) for c in text if c.isdigit()]
    return len(digits) == 13 and sum(d * (3 if n % 2 else 1) for n, d in enumerate(digits)) % 10 == 0


def ip_address(text: str) -> bool:
    """IPv4 and IPv6 addresses of hosts; loopback and unspecified ones name nobody."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def mac_address(text: str) -> bool:
    """Network cards' addresses; broadcast and zero are nobody's."""
    return len(set(re.sub(r"\W", "", text).lower())) > 1


def crypto(text: str) -> bool:
    """Addresses of Bitcoin (Base58Check, Bech32 of BIP 173 and Bech32m of BIP 350) and of Ethereum (hexadecimal)."""
    if text.startswith("0x"):
        return True
    return bech32(text) if text[:3] in ("bc1", "tb1") else bitcoin(text)


def bitcoin(text: str) -> bool:
    """Base58Check addresses: the last four bytes are the head of a double SHA-256."""
    number = 0
    for c in text:
        number = number * 58 + _BASE58.index(c)
    try:
        data = number.to_bytes(25, "big")
    except OverflowError:
        return False
    return hashlib.sha256(hashlib.sha256(data[:21]).digest()).digest()[:4] == data[21:]


def bech32(text: str) -> bool:
    """Bech32: a BCH code over the prefix and 5-bit letters."""
    head, _, data = text.partition("1")
    check = 1
    for value in [*(ord(c) >> 5 for c in head), 0, *(ord(c) & 31 for c in head), *(_BECH32.index(c) for c in data)]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for n, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if (top >> n) & 1 else 0
    return check in (1, 0x2BC830A3)
