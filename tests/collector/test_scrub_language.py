"""A text's language is told by its function words or its alphabet, and not at all where there are too few."""

import pytest

from collector.language import language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I am waiting for the parcel that you sent to my address", "en"),
        ("Ich warte auf das Paket, das Sie mir geschickt haben", "de"),
        ("je ne suis pas chez moi et je vous attends dans la rue", "fr"),
        ("Espero el paquete que me mandaron a la casa de mi madre", "es"),
        ("Sono a casa e non ho ricevuto il pacco che mi avete mandato", "it"),
        ("Ik ben thuis en wacht op het pakket dat u mij heeft gestuurd", "nl"),
        ("Não recebi a encomenda que foi enviada para a minha casa", "pt"),
        ("Czekam na moją paczkę, ale jej nie ma, proszę o pomoc", "pl"),
        ("Jag väntar på mitt paket och det har inte kommit till mig", "sv"),
        ("Я уже две недели жду посылку, которую вы отправили мне домой в Москву на прошлой неделе", "other"),
        ("Anna Kowalska, Kraków", None),
        ("Иван Петров", None),
        ("", None),
        ("12:30", None),
    ],
)
def test_a_language_is_told_where_it_can_be(text: str, expected: str | None) -> None:
    assert language(text) == expected
