"""The kinds of task that a route can serve."""

from enum import StrEnum


class TaskKind(StrEnum):
    """What a route's requests ask for; it decides endpoint, student family and default score."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    QUERY = "query"  # of a search, rewritten; asked as a chat
