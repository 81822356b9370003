"""What `engine.py` asks all engines."""


def story(number: int) -> list[dict[str, str]]:
    """The n-th request: a long answer, and no two alike."""
    text = f"Write a long story about a traveller who visits {number + 2} towns, and describe each of them in detail."
    return [{"role": "user", "content": text}]
