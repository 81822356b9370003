"""What has a form is found between letters of scripts without spaces, and with other dashes, spaces and signs."""

# ruff: noqa: RUF001 - signs that look like others are what is tested

import pytest
from real_scrubber import clean

from collector.scrub import Scrubber
from collector.writing import plainly

KEY = "sk-proj-aB3dE5fG7hI9jK1lM2nO"


@pytest.mark.parametrize(
    ("text", "personal"),
    [
        ("卡号{}谢谢", "4111111111111111"), ("IBANは{}です", "DE89370400440532013000"), ("SSNは{}です", "123-45-6789"),
        ("IP是{}吗", "93.184.216.34"), ("地址{}吗", "2a02:8109:1f::42"), ("電話は{}です", "090-1234-5678"),
        ("密钥{}好", KEY), ("地址{}吗", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"), ("地址{}吗", "00:1b:44:11:3a:b7"),
        ("บัตร{}ครับ", "4111111111111111"), ("카드{}입니다", "4111111111111111"), ("BSNは{}です", "111222333"),
        ("税号{}吗", "529.982.247-25"), ("البطاقة{}شكرا", "4111111111111111"), ("密码 password：{}", "hunter22x"),
        ("卡号{}", "４１１１１１１１１１１１１１１１"),
        ("pay {} now", "4111.1111.1111.1111"), ("pay {} now", "4111–1111–1111–1111"),
        ("pay {} now", "4111  1111  1111  1111"), ("pay {} now", "4111\n1111\n1111\n1111"),
        ("pay {} now", "4111\u200b1111\u200b1111\u200b1111"), ("pay {} now", "3782.822463.10005"),
        ("pay {}", "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000"), ("it is {}", "123–45–6789"),
        ("my social is {}", "123456789"), ("redis://:{}@host", "secretpw1"), ("https://user:{}@host/x", "p@ss"),
        ("curl -s -u {} https://x", "jane:hunter22"), ("my password is {}", "hunter2"),
        ("the password is: {}!", "hunter2"),
        ("pass: {}", "hunter22"), ("pw: {}; so", "hunter2abc"), ("PW={}, please", "hunter2abc"),
        ("密码：{}谢谢", "hunter22a"),
        ("密碼是{}，謝謝", "hunter22a"), ("口令＝{}", "hunter22a"), ("パスワードは{}です", "hunter22a"),
        ("비밀번호는 {}입니다", "hunter22"), ("비밀번호는{}입니다", "hunter22"), ("비밀번호: {}", "hunter22"),
        ("รหัสผ่าน: {}", "hunter22"), ("รหัสผ่านคือ {} ครับ", "hunter22"),
        ("https://hooks.slack.com/services/{}", "T01ABCDEF/B02ABCDEF/aBcDeFgHiJkLmNoPqRsTuVwX"),
        ("https://discord.com/api/webhooks/{}", "123456789012345678/aBcDeFgHiJkLmNoPqRsTuVwX"),
    ],
)  # fmt: skip
def test_what_has_a_form_is_found_however_it_is_written(scrubber: Scrubber, text: str, personal: str) -> None:
    before, after = text.split("{}")
    out = clean(scrubber, text.format(personal))
    assert personal not in out
    assert out.startswith(before)
    assert "now" in after or out.endswith(after)


@pytest.mark.parametrize(
    "text",
    [
        "passport issued 2017-01-14, valid until 14.01.2027", "https://example.net:8080/@jane", "4.123456789012345",
        "2019\n2020\n2021\n2022", "curl -s https://example.net/a:b", "版本4.5.6.7发布", "编号1234567890123456",
        "PASS: test2go", "pass: 3 of 12 tests", "low pass: 100kHz", "pass: src/a1b2c3.c", "pass: test_a1b2c3",
        "pw: required", "密码是6位数字", "密码：至少8个字符", "パスワードは必須です", "비밀번호는 8자 이상입니다",
        "password sha256 is weak",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_stays(scrubber: Scrubber, text: str) -> None:
    assert clean(scrubber, text) == text


def test_one_number_has_one_surrogate_however_it_is_written(scrubber: Scrubber) -> None:
    written = [
        "4111 1111 1111 1111",
        "4111–1111–1111–1111",
        "4111.1111.1111.1111",
        "4111\u200b1111\u200b1111\u200b1111",
    ]
    out = [clean(scrubber, f"card {card} is mine") for card in written]
    assert len({"".join(c for c in text if c.isdigit()) for text in out}) == 1


def test_a_plainly_written_text_knows_where_its_characters_stood() -> None:
    assert plainly("a-b") == ("a-b", None)
    assert plainly("a–b\u00a0é") == ("a-b é", None)
    text = "1\u200b2–\u00ad3"
    plain, at = plainly(text)
    assert plain == "12-3"
    assert at is not None
    assert [text[n] for n in at[:-1]] == ["1", "2", "–", "3"]
    assert at[-1] == len(text)
