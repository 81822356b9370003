"""The arithmetic that tells a real number from one that only looks like it. Pure; text in, truth out."""

import hashlib
import ipaddress
import re

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def luhn(text: str) -> bool:
    """Payment cards: 13 to 19 digits of a known issuer's range whose Luhn sum is a multiple of 10 (ISO/IEC 7812)."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6) or len(set(digits)) == 1:
        return False
    doubled = (sum(divmod(2 * d, 10)) for d in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


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


def ip_address(text: str) -> bool:
    """IPv4 and IPv6 addresses of hosts; loopback and unspecified ones name nobody."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


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
