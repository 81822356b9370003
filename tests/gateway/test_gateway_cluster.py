"""The stickiness key: who shares it, and where its salt lives."""

import json
from pathlib import Path
from typing import Any

import pytest

from collector import SALT_BYTES, read_salt
from gateway.body import Body, parse
from gateway.cluster import cluster_key, load_salt

SALT = bytes(SALT_BYTES)


def body(*messages: tuple[str, Any], **fields: Any) -> Body:
    listed = [{"role": role, "content": content} for role, content in messages]
    return parse(json.dumps({"model": "m", "messages": listed, **fields}).encode(), whole_up_to=1 << 20)


def test_the_session_header_wins_over_the_metadata_and_both_over_the_text() -> None:
    hi = body(("user", "hi"))
    named = body(("user", "hi"), metadata={"session_id": "a"})
    assert cluster_key(SALT, named, b"a") == cluster_key(SALT, hi, b"a") == cluster_key(SALT, named, None)
    assert cluster_key(SALT, named, b"b") != cluster_key(SALT, named, None)
    assert cluster_key(SALT, hi, None) not in (cluster_key(SALT, hi, b"a"), cluster_key(SALT, hi, b"hi"))


def test_a_conversation_keeps_its_key_from_turn_to_turn_and_differs_from_another() -> None:
    first = body(("system", "s"), ("user", "hi"))
    second = body(("system", "s"), ("user", "hi"), ("assistant", "yes?"), ("user", "more"))
    others = [body(("system", "s"), ("user", "ho")), body(("system", "t"), ("user", "hi")), body(("user", "hi"))]
    assert cluster_key(SALT, first, None) == cluster_key(SALT, second, None)
    assert cluster_key(SALT, first, None) not in [cluster_key(SALT, other, None) for other in others]


def test_the_parts_of_the_opening_cannot_be_confused() -> None:
    one, two = body(("system", "ab"), ("user", "c")), body(("system", "a"), ("user", "bc"))
    assert cluster_key(SALT, one, None) != cluster_key(SALT, two, None)


@pytest.mark.parametrize("metadata", [None, 3, [], {"session_id": 7}, {"session_id": ""}, {}])
def test_odd_metadata_is_passed_over(metadata: Any) -> None:
    assert cluster_key(SALT, body(("user", "hi"), metadata=metadata), None) == cluster_key(
        SALT, body(("user", "hi")), None
    )


def test_the_key_depends_on_the_salt_and_shows_nothing_of_the_session() -> None:
    key = cluster_key(SALT, body(), b"session-of-ann")
    assert len(key) == 32
    assert int(key, 16) >= 0
    assert key != cluster_key(bytes([1]) * SALT_BYTES, body(), b"session-of-ann")


def test_the_salt_lives_in_the_state_folder_and_is_the_same_for_all_workers(tmp_path: Path) -> None:
    salt = load_salt(str(tmp_path))
    assert load_salt(str(tmp_path)) == salt == read_salt(tmp_path / "run" / "salt")
