"""What a JSON key says of its value is used as the same words in a text are, and of other things nothing is taken."""

import json
from typing import Any

import pytest
from real_scrubber import clean

from collector.fields import key_says
from collector.scrub import Scrubber


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
    "value",
    [
        {"dob": "1980-02-01"}, {"date_of_birth": "01.02.1980"}, {"dateOfBirth": "1980-02-01T00:00:00Z"},
        {"dob": 19800201}, {"birth_year": 1980}, {"birth": {"year": 1980}}, {"dateofbirth": "5 March 1980"},
        {"ssn": "123456789"}, {"ssn": 123456789}, {"tax_id": "12-3456789"}, {"taxid": 123456789},
        {"national_id": "80020112345"}, {"member_id": 123456},
        {"passport_number": "X1234567"}, {"passport": {"number": "X1234567"}}, {"passportnumber": ["X1234567"]},
        {"driving_licence": "D1234567"}, {"driverLicense": "D1234567"}, {"account_number": "12345678"},
        {"accountNumber": 12345678}, {"accountNumber": 12345678.0},
        {"first_name": "Jane"}, {"lastName": "Doe"}, {"firstname": "anne-marie"}, {"full_name": "山田太郎"},
        {"name": {"first": "Jane"}}, {"name": "Jane", "email": ""}, {"customer": {"name": "Jane"}},
        {"customers": [{"name": "Jane"}]}, {"role": "user", "name": "Jane", "content": ""},
        {"role": "user", "name": "Jane_Doe", "content": ""},
        {"age": 34}, {"age": "34"}, {"token": "a1b2c3d4e5f6g7h8"}, {"pwd": "hunter22x"}, {"password": 12345678},
        {"zip": "94107"}, {"zip": 94107}, {"postcode": "SW1A 1AA"}, {"city": "Boston"}, {"address": {"city": "Bonn"}},
        {"address": "12 Baker Street, London"}, {"street": "Hauptstraße"}, {"phone": {"number": 4155552671}},
        {"server": "4.5.6.7"},
        {"customer": {"first": "Jane"}}, {"person": {"family": "Doe"}}, {"patients": [{"given": ["Jane"]}]},
        {"first": "Jane", "last": "Doe", "email": ""}, {"given": "Jane", "family": "Doe"}, {"guests": ["Bob"]},
        {"fname": "Jane"}, {"lName": "Doe"}, {"username": "janedoe"}, {"cvv": "123"}, {"card": {"cvc": 123}},
        {"pin": "4821"}, {"pinCode": 4821}, {"otp": "482193"}, {"security_code": 123}, {"routing": "021000021"},
        {"routing": 21000021}, {"license_plate": "7ABC123"}, {"numberPlate": "B-AB 1234"},
    ],
)  # fmt: skip
def test_a_value_is_personal_where_its_key_says_so(scrubber: Scrubber, value: dict[str, Any]) -> None:
    out = clean(scrubber, value)
    assert out != value
    assert out.keys() == value.keys()
    assert str(_leaf(value)) not in str(out)
    assert type(_leaf(out)) is type(_leaf(value))
    assert json.loads(clean(scrubber, json.dumps(value))) == out


def _leaf(value: Any) -> Any:
    """The value that is personal."""
    while isinstance(value, (dict, list)):
        value = value["name"] if "name" in value else next(iter(value.values() if isinstance(value, dict) else value))
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"type": "function", "function": {"name": "GetWeather", "description": "The weather", "parameters": {
            "type": "object", "required": ["first_name", "city"], "properties": {
                "first_name": {"type": "string", "description": "The first name", "title": "First Name"},
                "name": {"type": "string"}, "city": {"type": "string"}, "age": {"minimum": 18},
                "date_of_birth": {"type": "string", "format": "date"}}}}},
        {"role": "tool", "name": "GetWeather", "content": "3"},
        {"tool_calls": [{"id": "c1", "function": {"name": "GetWeather", "arguments": "{}"}}]},
        {"response_format": {"json_schema": {"name": "Person", "schema": {"title": "Person"}}}},
        {"products": [{"name": "Widget", "price": 3}]}, {"name": "Build"}, {"name": "Acme", "website": "", "email": ""},
        {"company": {"name": "Acme", "email": ""}}, {"max_age": 60}, {"passport_count": 123456}, {"token": "London"},
        {"tokens": 14155552671}, {"token_limit": 123456789012}, {"next_page_token": "abcdefgh"},
        {"server_version": "1.2.3.4"}, {"passport_expiry": "2030-01-02"}, {"first_name": "string"}, {"city": "any"},
        {"address": "db.example.net:5432"}, {"birthday_enabled": True}, {"order_number": "12345678"},
        {"created_at": "2024-01-02"}, {"id": 123456789}, {"state": "open"}, {"city": None},
        {"first": "Monday", "last": "Friday"}, {"users": {"first": 10, "last": "20"}}, {"font": {"family": "Arial"}},
        {"sex": "f", "family": "Felidae"}, {"guests": 2}, {"guests": ["Adults"]}, {"guests": "a couple"},
        {"customer": "Acme"}, {"teacher": "Qwen"}, {"student": "Qwen"}, {"pin": 117}, {"pin": "GPIO17"}, {"otp": True},
        {"security": 1234},
        {"cvv": "***"}, {"routing": "round_robin"}, {"plate": "12"}, {"license_plate": "unknown"},
        {"username": "postgres"},
    ],
)  # fmt: skip
def test_what_is_declared_or_of_things_stays(scrubber: Scrubber, value: dict[str, Any]) -> None:
    assert clean(scrubber, value) == value


def test_kept_and_declared_values_stay_under_a_telling_key_too(scrubber: Scrubber) -> None:
    assert clean(scrubber, {"first_name": "Jane"}, route="kept") == {"first_name": "Jane"}
    assert clean(scrubber, {"city": "Paris"}, untouchable={"Paris"}) == {"city": "Paris"}


def test_a_value_has_the_same_surrogate_as_json_as_in_a_text(scrubber: Scrubber) -> None:
    out = clean(
        scrubber, ["My name is Jane.", {"first_name": "Jane"}, "I was born on 1980-02-01", {"dob": "1980-02-01"}]
    )
    assert out[1]["first_name"] in out[0]
    assert out[3]["dob"] in out[2]


def test_a_short_number_is_not_turned_back_as_it_may_stand_anywhere(scrubber: Scrubber) -> None:
    pairs = scrubber.scrub([{"age": 34, "ssn": 123456789}], route="r", cluster="c", reversible=True).pairs
    assert set(pairs.values()) == {"123456789"}
