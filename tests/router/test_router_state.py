"""A stored state is read back whole, or refused with what can be done."""

import msgspec
import pytest
from rollout_story import Story

from router import RouterError, decode_state, encode_state


def test_a_state_in_the_middle_of_service_reads_back_as_it_was() -> None:
    story = Story()
    story.to_live()
    story.pairs(3, good=False)
    assert decode_state(encode_state(story.state)) == story.state


@pytest.mark.parametrize("schema", [1, 2, 3, 5])
def test_a_state_of_another_schema_is_refused_with_its_route_and_what_can_be_done(schema: int) -> None:
    story = Story()
    story.to_canary()
    other = msgspec.msgpack.decode(encode_state(story.state))
    other["schema"] = schema
    with pytest.raises(RouterError, match=rf"route 'r' .* has schema {schema}, .* reads schema 4; use the release"):
        decode_state(msgspec.msgpack.encode(other))


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x80", b"\x81\xa5route\xa1\xff", encode_state(Story().state)[:-1]])
def test_bytes_that_are_no_state_are_refused_with_what_can_be_done(data: bytes) -> None:
    with pytest.raises(RouterError, match=r"can't be read .*; use the release"):
        decode_state(data)
