"""What is wrong with a request is said in OpenAI's error shape, before any upstream is asked."""

import pytest
from gateway_fakes import REQUEST, FakeUpstream, gateway, settings

from gateway.body import MAX_BYTES


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b'{"model": "gpt-4o"', b"[]", b'"gpt-4o"', b'{"model": NaN}', b"[" * 100_000, b'{"model":"\xff"}'],
)
async def test_a_body_that_is_no_json_object_is_refused_with_400(teacher: FakeUpstream, body: bytes) -> None:
    async with gateway(settings(teacher.url)) as running, running.post(body) as got:
        assert got.status == 400
        problem = (await got.json())["error"]
    assert set(problem) == {"message", "type", "param", "code"}
    assert problem["type"] == "invalid_request_error"
    assert teacher.asked == []


@pytest.mark.parametrize("body", [b"{}", b'{"model": null}', b'{"model": 3}', b'{"model": ""}'])
async def test_a_missing_model_is_refused_with_400_and_named(teacher: FakeUpstream, body: bytes) -> None:
    async with gateway(settings(teacher.url)) as running, running.post(body) as got:
        assert got.status == 400
        assert (await got.json())["error"]["param"] == "model"


async def test_an_unknown_model_is_refused_with_404_and_the_known_ones_named(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running, running.post({**REQUEST, "model": "gpt-9"}) as got:
        assert got.status == 404
        problem = (await got.json())["error"]
    assert "'gpt-9'" in problem["message"]
    assert "gpt-4o, support" in problem["message"]
    assert problem["code"] == "model_not_found"


async def test_a_body_too_large_is_refused_with_413_and_the_connection_goes_on(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        async with running.post(b" " * (MAX_BYTES + 1)) as got:
            assert got.status == 413
        async with running.post(REQUEST) as got:
            assert got.status == 200


async def test_a_chunked_body_too_large_is_refused_with_413(teacher: FakeUpstream) -> None:
    async def pieces():
        for _ in range(33):
            yield b" " * (1 << 20)

    async with gateway(settings(teacher.url)) as running:
        got = await running.client.post(f"{running.url}/chat/completions", data=pieces())
        assert got.status == 413
        assert (await got.json())["error"]["code"] == "request_too_large"


async def test_another_method_is_refused_with_405(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        for path, method in (("chat/completions", "GET"), ("models", "POST")):
            async with running.client.request(method, f"{running.url}/{path}") as got:
                assert got.status == 405
                assert (await got.json())["error"]["code"] == "method_not_allowed"


async def test_an_unknown_path_is_refused_with_404_in_openais_shape(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running, running.client.get(f"{running.url}/nothing") as got:
        assert got.status == 404
        assert (await got.json())["error"]["code"] == "not_found"


async def test_refusals_are_counted_with_no_label_from_the_client(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        async with running.post({**REQUEST, "model": "evil" * 10}):
            pass
        (fields,) = running.events("gateway.request")
    assert (fields["route"], fields["status"], fields["outcome"]) == ("", 404, "refused")
