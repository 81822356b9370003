def is_english(text: str) -> bool:
    from collector.plausible import _NOT_ENGLISH

    return not _NOT_ENGLISH.search(text)
