"""Parsing reads what routing needs, and replacing the model touches nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.body import parse, with_model
from gateway.errors import InvalidRequest

_text = st.text(max_size=8) | st.sampled_from(["model", '"model"', '\\"model\\":', "\\u006d", '{"model":"x"}', "\\"])
_leaf = st.none() | st.booleans() | st.integers(-9, 9) | _text
_key = st.sampled_from(["model", "messages", "mode", "models", "Model", "tools", "a\\", '"']) | _text
_value = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_key, inner, max_size=3), max_leaves=12
)
_request = st.lists(st.tuples(_key, _value), max_size=5)
_spelling = st.sampled_from(['"model"', '"\\u006dodel"', '"mod\\u0065l"', '"\\u006d\\u006F\\u0064\\u0065\\u006C"'])
_space = st.sampled_from(["", " ", "\n\t", "  \r\n"])


@given(_request, _text.filter(bool), st.integers(0, 5), _spelling, _space, st.booleans())
def test_only_the_top_level_model_is_replaced_and_every_other_byte_stays(
    pairs: list[tuple[str, Any]], model: str, at: int, spelling: str, space: str, ascii_only: bool
) -> None:
    members = [
        f"{space}{json.dumps(k, ensure_ascii=ascii_only)}{space}:{space}{json.dumps(v, ensure_ascii=ascii_only)}"
        for k, v in pairs
        if k != "model"
    ]
    head = f"{space}{spelling}{space}:{space}"
    members.insert(at, head + json.dumps(model, ensure_ascii=ascii_only))
    expected = [head + '"gpt-\\u00e9"' if member.startswith(head) else member for member in members]
    raw = ("{" + f"{space},".join(members) + space + "}").encode("utf-8", "surrogatepass")
    want = ("{" + f"{space},".join(expected) + space + "}").encode("utf-8", "surrogatepass")
    assert with_model(raw, b'"gpt-\\u00e9"') == want
    assert json.loads(want.decode("utf-8", "surrogatepass"))["model"] == "gpt-é"


def test_a_repeated_model_is_replaced_wherever_it_stands() -> None:
    raw = b'{"model":"a","x":{"model":"b"},"model" : "c"}'
    assert with_model(raw, b'"new"') == b'{"model":"new","x":{"model":"b"},"model" : "new"}'


def test_a_long_body_is_not_copied_but_its_opening_is_the_same() -> None:
    messages = [
        {"role": "developer", "content": "be\u00a0brief"},
        {"role": "system", "content": "second"},
        {"role": "user", "content": [{"type": "text", "text": "h\u00e9"}]},
        {"role": "user", "content": "later"},
    ]
    raw = json.dumps({"model": "m", "messages": messages, "n": 2, "stream": True}).encode()
    small, large = parse(raw, whole_up_to=len(raw)), parse(raw, whole_up_to=len(raw) - 1)
    assert small.opening == large.opening == ("be\u00a0brief", [{"type": "text", "text": "h\u00e9"}])
    assert (large.model, large.stream, large.top["n"]) == ("m", True, 2)
    assert large.top["messages"] == [{"role": message["role"]} for message in messages]


@pytest.mark.parametrize("limit", [0, 10_000])
@pytest.mark.parametrize("messages", [b"null", b"3", b"[1]", b"{}", b'[{"role": 3, "content": {}}]', b"[[]]"])
def test_odd_messages_are_left_to_the_upstream_to_judge(messages: bytes, limit: int) -> None:
    body = parse(b'{"model":"m","messages":' + messages + b"}", whole_up_to=limit)
    assert body.opening == (None, None)


@pytest.mark.parametrize("limit", [0, 10_000])
def test_a_broken_body_is_refused_however_long_it_is(limit: int) -> None:
    for raw in (b'{"model":"m","messages":[}', b"[1]", b'{"model":"m"', b'{"messages":[]}'):
        with pytest.raises(InvalidRequest):
            parse(raw, whole_up_to=limit)
