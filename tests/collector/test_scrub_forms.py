"""What has a form is found by it, and what only looks like it is left alone."""

import pytest

from collector.checksums import bitcoin, iban, ip_address, luhn, ssn
from collector.plausible import Found, plausible
from collector.recognizers import is_phone, key_says
from collector.scrub import Kept, declared_values, without


@pytest.mark.parametrize(
    ("check", "good", "near"),
    [
        (luhn, "4111 1111 1111 1111", "4111 1111 1111 1112"),
        (luhn, "5500-0000-0000-0004", "5500-0000-0000-0005"),
        (luhn, "378282246310005", "978282246310005"),
        (iban, "DE89 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"),
        (iban, "gb82west12345698765432", "gb82west12345698765433"),
        (ssn, "123-45-6789", "000-45-6789"),
        (ssn, "123-45-6789", "923-45-6789"),
        (ip_address, "8.8.8.8", "8.8.8.256"),
        (ip_address, "2001:db8::1", "127.0.0.1"),
        (bitcoin, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb"),
    ],
)
def test_a_checksum_tells_the_real_from_the_near(check: object, good: str, near: str) -> None:
    assert check(good)  # type: ignore[operator]
    assert not check(near)  # type: ignore[operator]


def believed(text: str, span: str, entity: str = "PERSON", score: float = 0.9) -> bool:
    start = text.index(span)
    return bool(plausible(text, [Found(entity, start, start + len(span), score)]))


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("hi, this is jane", "jane"),
        ("Please tell Jane that I called.", "Jane"),
        ("my name is José Ruiz-Soto", "José Ruiz-Soto"),
    ],
)
def test_a_name_among_words_about_people_is_believed(text: str, span: str) -> None:
    assert believed(text, span, score=0.6)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("tina: text-based information manager", "tina"),
        ("libjson-perl and more", "perl"),
        ("bindings for Haskell", "Haskell"),
        ("parser for JSON files", "JSON"),
        ("java", "java"),
        ("my file foo.bar is here", "bar"),
        ("tell me what user42 did", "user42"),
    ],
)
def test_a_word_of_technical_text_is_not(text: str, span: str) -> None:
    assert not believed(text, span)


def test_a_pair_of_names_needs_less_than_one_alone() -> None:
    assert believed("patches by Frank Harrell for R", "Frank Harrell")
    assert not believed("patches by Frank for R", "Frank")
    assert believed("patches by Frank for R", "Frank", score=0.99)


def test_house_numbers_and_postcodes_count_beside_a_street_and_identity_numbers_where_they_are_long() -> None:
    text = "I live at 12 Baker Street"
    street = Found("STREET", 13, 25, 0.9)
    number = Found("BUILDING_NUMBER", 10, 12, 0.9)
    assert plausible(text, [street, number]) == [street, number]
    assert plausible("see line 12 here", [Found("BUILDING_NUMBER", 9, 11, 0.99)]) == []
    assert believed("my passport is X1234567", "X1234567", "ID_NUMBER")
    assert not believed("port 8080 is my port", "8080", "ID_NUMBER")
    assert not believed("fixed in my commit deadbeef1234567", "deadbeef1234567", "ID_NUMBER")


def test_a_declared_schemas_values_are_its_vocabulary() -> None:
    request = {
        "response_format": {
            "json_schema": {"schema": {"properties": {"a": {"enum": ["java", "lisa", 3]}, "b": {"const": "x"}}}}
        },
        "tools": [{"function": {"parameters": {"properties": {"c": {"enum": ["paris"]}}}}}],
    }
    assert declared_values(request) == {"java", "lisa", "x", "paris"}


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("phone", "PHONE"), ("homePhone", "PHONE"), ("tel_no", "PHONE"), ("Mobile Number", "PHONE"),
        ("phones", "PHONE"), ("api_key", "PASSWORD"), ("accessToken", "PASSWORD"), ("password", "PASSWORD"),
        ("phone_count", "OTHER"), ("orderId", "OTHER"), ("order_number", "OTHER"), ("token", "OTHER"),
        ("created_at", "OTHER"), ("price", "OTHER"), ("prompt_tokens", "OTHER"), ("ids", "OTHER"),
        ("mobile_users", ""), ("contact", ""), ("n", ""), ("", ""), ("123", ""),
    ],
)  # fmt: skip
def test_a_keys_last_words_say_what_stands_under_it(key: str, says: str) -> None:
    assert key_says(key) == says


@pytest.mark.parametrize(
    ("digits", "key", "expected"),
    [
        ("14155552671", "", True),
        ("491701234567", "contact", True),
        ("14155552671", "id", False),
        ("4155552671", "phone", True),
        ("4155552671", "", False),
        ("123456", "phone", False),
        ("1764110000", "n", False),  # a time in seconds
        ("1764110000123", "n", False),  # in milliseconds
        ("99999999999", "n", False),
    ],
)
def test_digits_are_a_phone_where_their_key_or_their_country_says_so(digits: str, key: str, expected: bool) -> None:
    assert is_phone(digits, key) is expected


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Django Reinhardt", ["Reinhardt"]),
        ("12 Java Street", ["12", "Street"]),
        ("django, java", []),
        ("Djangology Javanese", ["Djangology Javanese"]),
        ("Ada (Java) Doe", ["Ada", "Doe"]),
        ("paris Paris", ["paris"]),
    ],
)
def test_of_a_stretch_of_text_whole_kept_words_are_left_out(text: str, left: list[str]) -> None:
    kept = Kept(frozenset({"Django", "Java"}), frozenset({"Paris", ""}))
    assert [text[a:b] for a, b in without(kept.places(text), text, 0, len(text))] == left
