"""What has a form is found by it, and what only looks like it is left alone."""

import pytest

from collector import cues, forms
from collector.addresses import parts
from collector.checksums import bitcoin, iban, ip_address, luhn, ssn
from collector.fields import key_says
from collector.kept import Kept, declared_values, without
from collector.plausible import Found, is_technical, plausible
from collector.recognizers import is_phone
from collector.spacy_names import trimmed


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
        "functions": [{"parameters": {"properties": {"d": {"enum": ["rome"]}}}}],
        "text": {"format": {"type": "json_schema", "schema": {"properties": {"e": {"enum": ["lima"]}}}}},
        "messages": [{"content": {"enum": ["jane"]}}],
    }
    assert declared_values(request) == {"java", "lisa", "x", "paris", "rome", "lima"}


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
    assert is_phone(digits, key_says(key)) is expected


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


def found(text: str) -> list[tuple[str, str]]:
    return [(entity, text[a:b]) for entity, a, b in forms.find(text)]


@pytest.mark.parametrize(
    ("entity", "take", "near"),
    [
        ("SECRET", "sk-proj-aB3dE5fG7hI9jK1lM2nO", "sk-learn-contrib-extension-pack"),
        ("SECRET", "github_pat_" + "a1B2c3" * 8, "github_pat_short"),
        ("SECRET", "glpat-a1B2c3D4e5F6g7H8i9J0", "glpat-short"),
        ("SECRET", "xoxb-123456789012-a1B2c3D4", "xoxo-123456789012"),
        ("SECRET", "SK" + "0a1b2c3d" * 4, "SK" + "0a1b2c3d" * 3),
        ("SECRET", f"SG.{'a1' * 11}.{'b2' * 21}", "SG.1.2"),
        ("SECRET", "npm_" + "a1B2c3" * 6, "npm_config_registry"),
        ("SECRET", "pypi-" + "AgEIcHlwaS5vcmc" * 4, "pypi-server"),
        ("SECRET", "dop_v1_" + "0a1b2c3d" * 8, "dop_v1_beef"),
        ("SECRET", f"123456789:AA{'aB3' * 11}", "12:30:AA"),
        ("SECRET", f"M{'a1B2' * 6}.a1B2c3.{'x' * 27}", "Module.method.call"),
        ("SECRET", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----",
         "-----BEGIN PUBLIC KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END PUBLIC KEY-----"),
        ("SECRET", "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIBexample0123",
         "the line -----BEGIN EC PRIVATE KEY----- comes first"),
        ("PASSWORD", "password: hunter22", "password: str = None"),
        ("PASSWORD", "AWS_SECRET_ACCESS_KEY=abcdEFGH1234", "secret = os.environ['KEY']"),
        ("PASSWORD", "?api_key=a1b2c3d4&page=2", "?page_key=a1b2c3d4"),
        ("PASSWORD", "my password is Tr0ub4dor", "the password is required by the form"),
        ("PASSWORD", "token = a1b2c3d4e5", "token: Unique names for tokens"),
        ("PASSWORD", "pwd=$ecret99!", "pwd=${DB_PASSWORD}"),
        ("URL_CREDENTIALS", "https://jane:hunter22@example.net/x", "https://example.net:8080/@jane"),
        ("CARD", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("CARD", "card 4222222222222", "batch 4222222222222"),
        ("CARD", "378282246310005", "a378282246310005f"),
        ("IP_ADDRESS", "192.0.2.44", "192.0.2.444"),
        ("IP_ADDRESS", "host 4.5.6.7 is down", "release 4.5.6.7 is out"),
        ("IP_ADDRESS", "2a02:8109:1f::42", "std::vector::at"),
        ("IP_ADDRESS", "fe80::1ff:fe23:4567:890a", "12:34:56"),
        ("MAC_ADDRESS", "00:1b:44:11:3a:b7", "00:1b:44:11:3a:b7:c8"),
        ("MAC_ADDRESS", "001b.4411.3ab7", "ff:ff:ff:ff:ff:ff"),
        ("CRYPTO_ADDRESS", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5"),
        ("CRYPTO_ADDRESS", "0x52908400098527886E0F7030069857D2E4169EE7", "52908400098527886E0F7030069857D2E4169EE7"),
        ("ID_NUMBER", "912-70-1234", "912-00-1234"),
        ("ID_NUMBER", "AB 12 34 56 C", "QQ 12 34 56 C"),
        ("ID_NUMBER", "ABCPE1234F", "ABCXE1234F"),
        ("ID_NUMBER", "529.982.247-25", "529.982.247-26"),
        ("ID_NUMBER", "756.9217.0769.85", "756.9217.0769.86"),
        ("ID_NUMBER", "2 55 08 14 168 025 38", "2 55 08 14 168 025 39"),
        ("ID_NUMBER", "12345678Z", "12345678A"),
        ("ID_NUMBER", "X1234567L", "X1234567M"),
        ("ID_NUMBER", "RSSMRA85T10A562S", "RSSMRA85T10A562T"),
        ("ID_NUMBER", "15070649C103", "15070649C104"),
        ("ID_NUMBER", "pan: abcpe1234f", "pan: abcxe1234f"),
        ("ID_NUMBER", "nie: x1234567", "nie mehr 1234567"),
        ("PASSPORT", "护照X1234567", "passport issued 2017-01-14"),
        ("ID_NUMBER", "my BSN is 111222333", "the sum is 111222333"),
        ("PASSPORT", "passport no. X1234567", "part no. X1234567"),
        ("DRIVING_LICENCE", "driver's license: D1234567", "device driver: D1234567"),
        ("BANK_ACCOUNT", "account number 12345678", "the account of 12345678 users"),
        ("DATE_OF_BIRTH", "born on 12 March 1980", "released on 12 March 1980"),
        ("DATE_OF_BIRTH", "geboren am 05.04.1986", "erschienen am 05.04.1986"),
        ("AGE", "I'm 34 years old", "the bug is 34 years old"),
        ("AGE", "elle a 34 ans.", "il y a 34 ans."),
        ("PHONE", "tel. 451 5986", "line 451 5986"),
        ("PHONE", "+49(0)3160285272", "x+49031602852723"),
        ("ZIP_CODE", "ZIP: 48750", "zip -9 48750.txt"),
        ("PHONE", "call me at 555 1234", "the system call returns 1000000 bytes"),
        ("PASSWORD", "the token is now a1b2c3d4e5", "the token limit for gpt-4o-mini-2024 is high"),
        ("ID_NUMBER", "NIE: Y0475591B and NIE Y0475591", "ein Buch mit 123456 Seiten"),
        ("DATE_OF_BIRTH", "nata il 04.04.1949", "NATO was founded on 04.04.1949"),
    ],
)  # fmt: skip
def test_what_has_a_form_or_a_telling_word_is_taken_and_what_is_near_it_is_not(
    entity: str, take: str, near: str
) -> None:
    assert entity in {found for found, _ in found(take)}, take
    assert entity not in {found for found, _ in found(near)}, near


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Frau Gießler ruft an", ["Gießler"]),
        ("je m'appelle Anne de la Tour", ["Anne de la Tour"]),
        ("holder=Jan van den Berg;", ["Jan van den Berg"]),
        ("name FROM users", []),
        ("the file name is Foo", []),
        ("in dr mario", []),
        ("on MS Windows", []),
        ("name: Build\nruns-on: linux", []),
        ("this is Debian, a Linux", []),
        ("Mr. Torvalds wrote the kernel", ["Torvalds"]),
    ],
)
def test_titles_and_phrases_announce_names(text: str, names: list[str]) -> None:
    found = cues.besides(text, [])
    assert [text[f.start : f.end] for f in found if f.entity_type == "PERSON"] == names


@pytest.mark.parametrize(
    ("text", "street"),
    [
        ("vive en Calle de la Rosa 12, hoy", "Calle de la Rosa 12"),
        ("au 12 bis, rue des Lilas", "12 bis, rue des Lilas"),
        ("in der Karl-Marx-Allee 34a", "Karl-Marx-Allee 34a"), ("at 221 Baker Street", "221 Baker Street"),
        ("P.O. Box 211", "P.O. Box 211"), ("Via Roma 5", "Via Roma 5"), ("calle de la rosa 12", "calle de la rosa 12"),
        ("connect via port 8080", None), ("copied via USB 3", None), ("the place 12 of them met", None),
        ("monitoring 80 hosts", None), ("see instr. 12", None), ("box 12 of 20", None),
    ],
)  # fmt: skip
def test_streets_have_a_form(text: str, street: str | None) -> None:
    found = [text[f.start : f.end] for f in cues.besides(text, []) if f.entity_type == "STREET"]
    assert found == ([street] if street else [])


def test_ages_and_repeated_words_belong_to_a_name() -> None:
    text = "Jane Doe (34) came. Jane left; a doe, Janet and June stayed."
    every = cues.besides(text, [Found("PERSON", 0, 8, 0.9)])
    assert [(f.entity_type, text[f.start : f.end]) for f in every] == [("PERSON", "Jane"), ("AGE", "34")]
    assert cues.besides("version (34) came", []) == []


@pytest.mark.parametrize(
    ("text", "town", "beside"),
    [
        ("Apt. 4, 10115 Berlin", "Berlin", ["Apt. 4", "10115"]),
        ("Leeds LS1 4AP, 300 people", "Leeds", ["LS1 4AP", "300"]),
        ("in Berlin there are 10115 trees", "Berlin", []),
        ("unit 3 tests run", None, []),
    ],
)
def test_numbers_beside_a_place_belong_to_it(text: str, town: str | None, beside: list[str]) -> None:
    places = [(text.index(town), text.index(town) + len(town))] if town else []
    assert sorted(text[a:b] for a, b in parts(text, places)) == sorted(beside)


@pytest.mark.parametrize(
    ("text", "technical"),
    [
        ("Bindings for Lua", True), ("libfoo3: nothing", True), ("call foo_bar", True), ("my file is lost", False),
        ("My driver was late", False), ("the driver and the server", True), ("Is Sam in?", False),
        ("mail me: a_b@example.org", False), ("see commit 3f2a9b1c", True), ("SELECT 1", True),
    ],
)  # fmt: skip
def test_text_of_software_is_told_from_talk(text: str, technical: bool) -> None:
    assert is_technical(text) is technical


@pytest.mark.parametrize(
    ("text", "find", "left"),
    [
        ("Mrs. Jane Doe's son", "Mrs. Jane Doe's", "Jane Doe"),
        ("Altoona by helicopter", "Altoona by helicopter", "Altoona"),
        ("Jane Doe\nPhone", "Jane Doe\nPhone", "Jane Doe"),
        ("South Africa", "South Africa", "South Africa"),
        ("the rest", "the rest", ""),
    ],
)
def test_a_find_of_spacy_is_trimmed_to_the_name(text: str, find: str, left: str) -> None:
    start, end = trimmed(text, text.index(find), text.index(find) + len(find))
    assert text[start:end] == left
