# ruff: noqa: RUF001 - scripts have commas of their own
"""Between words of scripts without spaces what has a form is found, the words around it stay, and nothing takes for
ever."""

import random

import pytest
from real_scrubber import clean

from collector.scrub import Scrubber
from collector.surrogates import Surrogates


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("我的身份证号码是", "11010519491231002X", "。"),
        ("我叫李，身份证号", "11010519491231002X", "，谢谢"),
        ("你好请帮我把上周的合同和发票都发送到", "jane.doe@acme.org", "然后告诉我结果"),
        ("メールは", "jane.doe@acme.co.jp", "です"),
        ("이메일은", "kim@acme.org", "입니다"),
        ("почта: ", "иван@почта.рф", " тут"),
        ("schreib an ", "jürgen@müller-bau.de", "!"),
    ],
)
def test_a_value_is_replaced_and_the_words_around_it_stay(
    scrubber: Scrubber, before: str, value: str, after: str
) -> None:
    found = clean(scrubber, f"{before}{value}{after}")
    assert found.startswith(before)
    assert found.endswith(after)
    assert value not in found


@pytest.mark.parametrize(
    "entity", ["ID_NUMBER", "CARD", "PHONE", "IBAN", "PASSPORT", "BANK_ACCOUNT", "DRIVING_LICENCE"]
)
@pytest.mark.parametrize("said", ["身份证号11010519491231002X", "passport no. X1234567", "Steuer-ID: 12345678911"])
def test_a_span_that_holds_the_word_that_announces_it_gets_a_surrogate_too(entity: str, said: str) -> None:
    for number in range(20):
        made = Surrogates(random.Random(number).randbytes(32)).of(entity, said)
        assert len(made) == len(said)


def test_brackets_without_end_are_a_text(scrubber: Scrubber) -> None:
    assert clean(scrubber, "[" * 30_000) == "[" * 30_000
