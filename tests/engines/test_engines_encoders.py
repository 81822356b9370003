"""Encoders in the real worker process, behind the engine's HTTP server."""

import asyncio
import base64
import io
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import tiny_encoder
from aiohttp import ClientSession, web
from engine_fakes import Served, until, version

from exporters.models import ENCODER, Manifest
from exporters.models.encoder_session import EncoderSession, score
from exporters.models.to_encoder import Exported, export_bi_encoder, export_cross_encoder
from gateway.engines.child import Child
from gateway.engines.errors import NotReady
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.probe import probe
from gateway.engines.server import create_app
from router import Events

TEXTS = tiny_encoder.TEXTS

Serve = Callable[[Path], Awaitable[Served]]


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    root = tmp_path_factory.mktemp("embedding")
    (root / "out").mkdir()
    return root / "out", export_bi_encoder(tiny_encoder.bi_encoder(root, dense=16), root / "out", shorter=(8,))


@pytest.fixture(scope="module")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    root = tmp_path_factory.mktemp("ranking")
    (root / "out").mkdir()
    asked = [(TEXTS[n], TEXTS[10 * n : 10 * n + 10]) for n in range(3)]
    return root / "out", export_cross_encoder(tiny_encoder.cross_encoder(root / "cross"), root / "out", asked=asked)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    ends: list[Callable[[], Awaitable[Any]]] = []

    async def start(folder: Path) -> Served:
        child = await Child.start(folder, runtime=ENCODER, threads=1, timeout=60)
        hosts, events, emitted = Hosts(), Events(), []
        events.subscribe(lambda name, fields: emitted.append({"name": name, **fields}))
        hosted = Hosted(version("v1"), child, queue=64)
        hosts.add(hosted)
        runner = web.AppRunner(create_app(hosts, events=events), handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = ClientSession()
        ends.extend((client.close, runner.cleanup, child.close))
        return Served("http://{}:{}/versions/v1".format(*runner.addresses[0][:2]), hosted, client, emitted)

    yield start
    for end in ends:
        await end()


def manifest(exported: Exported) -> Manifest:
    return Manifest(
        id="m", route="r", kind="embedding", runtime=ENCODER, base="b", base_revision="0", quantization="int8",
        created_at=1.0, files={}, golden=exported.golden,
    )  # fmt: skip


async def test_openais_client_gets_vectors(embedding: tuple[Path, Exported], serve: Serve) -> None:
    served = await serve(embedding[0])
    session = EncoderSession.load(embedding[0], threads=1)
    rows = [session.text(text) for text in TEXTS[:5]]
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0) as client:
        got = await client.embeddings.create(model="m", input=TEXTS[:5])  # base64, though nobody asked for it
        assert np.array([one.embedding for one in got.data]) == pytest.approx(session.run(rows), abs=1e-5)
        assert [one.index for one in got.data] == [0, 1, 2, 3, 4]
        assert got.usage.prompt_tokens == got.usage.total_tokens == sum(len(row.ids) for row in rows)
        plain = await client.embeddings.create(model="m", input=TEXTS[0], encoding_format="float")
        assert plain.data[0].embedding == pytest.approx(got.data[0].embedding, abs=1e-6)
        short = (await client.embeddings.create(model="m", input=TEXTS[0], dimensions=8)).data[0].embedding
        cut = np.array(plain.data[0].embedding[:8])
        assert short == pytest.approx((cut / np.linalg.norm(cut)).tolist(), abs=1e-6)
        assert len((await client.embeddings.create(model="m", input="a", dimensions=16)).data[0].embedding) == 16
    event = next(e for e in served.emitted if e["name"] == "engine.request")
    assert (event["name"], event["operation"], event["outcome"]) == ("engine.request", "embeddings", "ok")
    assert event["prompt_tokens"] == got.usage.prompt_tokens
    assert 0 <= event["queue_seconds"] <= event["seconds"]
    assert event["batch"] == 1.0


async def test_base64_is_the_bytes_of_float32(embedding: tuple[Path, Exported], serve: Serve) -> None:
    served = await serve(embedding[0])
    told = []
    for form in ("base64", "float"):
        answer = await served.post({"input": TEXTS[:2], "encoding_format": form}, path="/v1/embeddings")
        told.append((await answer.json())["data"][1]["embedding"])
    assert np.frombuffer(base64.b64decode(told[0]), "<f4").tolist() == told[1]


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"input": ""}, "input", "isn't empty"),
        ({"input": []}, "input", "at least one"),
        ({"input": ["a", ""]}, "input[1]", "isn't empty"),
        ({"input": [1, 2, 3]}, "input", "token ids"),
        ({"input": [[1, 2], [3]]}, "input", "token ids"),
        ({"input": {"text": "a"}}, "input", "must be a text"),
        ({"input": ["a"] * 2049}, "input", "at most 2048"),
        ({"input": "a", "dimensions": 4}, "dimensions", "trained for 8, 16"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "float or base64"),
        ({"input": ["a", "the red car " * 40]}, "input[1]", "48 tokens"),
        ({"input": "a", "truncate": "START"}, "truncate", "END"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(
    embedding: tuple[Path, Exported], serve: Serve, body: dict[str, Any], param: str, said: str
) -> None:
    refused = await (served := await serve(embedding[0])).post(body, path="/v1/embeddings")
    error = (await refused.json())["error"]
    assert (refused.status, error["param"]) == (400, param)
    assert said in error["message"]
    assert served.emitted[-1]["outcome"] == error["code"]


async def test_a_body_above_the_limit_is_a_413(embedding: tuple[Path, Exported], serve: Serve) -> None:
    served = await serve(embedding[0])
    refused = await served.client.post(f"{served.url}/v1/embeddings", data=io.BytesIO(b"x" * (17 << 20)))
    assert (refused.status, served.emitted[-1]["outcome"]) == (413, "request_too_large")


async def test_a_long_text_is_cut_where_that_is_asked_for(embedding: tuple[Path, Exported], serve: Serve) -> None:
    served = await serve(embedding[0])
    body = {"input": "the red car " * 40, "truncate": "END"}
    answer = await served.post(body, path="/v1/embeddings")
    assert (await answer.json())["usage"] == {"prompt_tokens": 48, "total_tokens": 48}


async def test_documents_are_ranked(ranking: tuple[Path, Exported], serve: Serve) -> None:
    served = await serve(ranking[0])
    session = EncoderSession.load(ranking[0], threads=1)
    rows = [session.pair(TEXTS[0], document) for document in TEXTS[1:9]]
    scores = score(session.card, session.run(rows))
    body = {"query": TEXTS[0], "documents": [*TEXTS[1:5], *({"text": text} for text in TEXTS[5:9])]}
    got = await (await served.post(body, path="/v1/rerank")).json()
    assert [one["index"] for one in got["results"]] == np.argsort(-scores, kind="stable").tolist()
    assert [one["relevance_score"] for one in got["results"]] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    assert got["usage"]["total_tokens"] == sum(len(row.ids) for row in rows)
    assert "document" not in got["results"][0]
    best = await (await served.post({**body, "top_n": 2, "return_documents": True}, path="/v1/rerank")).json()
    assert best["results"] == [{**one, "document": {"text": TEXTS[1 + one["index"]]}} for one in got["results"][:2]]
    assert served.emitted[-1]["operation"] == "rerank"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": ["a"]}, "query"),
        ({"query": "a", "documents": []}, "documents"),
        ({"query": "a", "documents": ["b", {"title": "c"}]}, "documents[1]"),
        ({"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        ({"query": "a", "documents": ["b"], "max_tokens_per_doc": 9}, "max_tokens_per_doc"),
        ({"query": "the red car " * 40, "documents": ["b"]}, "query"),
        ({"query": "a", "documents": ["b", "the red car " * 40], "truncate": "NONE"}, "documents[1]"),
    ],
)
async def test_what_cannot_be_ranked_is_refused_by_name(
    ranking: tuple[Path, Exported], serve: Serve, body: dict[str, Any], param: str
) -> None:
    refused = await (await serve(ranking[0])).post(body, path="/v1/rerank")
    assert (refused.status, (await refused.json())["error"]["param"]) == (400, param)


async def test_a_version_is_asked_for_what_it_does(
    embedding: tuple[Path, Exported], served: Served, serve: Serve
) -> None:
    encoder = await serve(embedding[0])
    for one, path, body in (
        (encoder, "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        (encoder, "/v1/rerank", {"query": "a", "documents": ["b"]}),
        (served, "/v1/embeddings", {"input": "a"}),
    ):
        refused = await one.post(body, path=path)
        assert refused.status == 400
        assert "ask it at /v1/" in (await refused.json())["error"]["message"]
    assert (await encoder.client.post(f"{encoder.url[:-2]}v9/v1/embeddings", json={"input": "a"})).status == 404


async def test_a_client_that_leaves_ends_its_work(embedding: tuple[Path, Exported], serve: Serve) -> None:
    served = await serve(embedding[0])
    large = asyncio.create_task(served.post({"input": [f"{n} {TEXTS[1]}" for n in range(2048)]}, path="/v1/embeddings"))
    await until(lambda: served.hosted.inside > 0)
    large.cancel()
    await asyncio.sleep(0.05)
    assert (await served.post({"input": "a"}, path="/v1/embeddings")).status == 200
    assert await served.hosted.idle(5.0)
    requests = [e for e in served.emitted if e["name"] == "engine.request"]
    assert [e["outcome"] for e in requests] == ["cancelled", "ok"]


async def test_a_short_request_is_answered_before_a_long_one(embedding: tuple[Path, Exported], serve: Serve) -> None:
    served = await serve(embedding[0])
    ended = []

    async def ask(texts: list[str]) -> None:
        async with served.client.post(f"{served.url}/v1/embeddings", json={"input": texts}) as answer:
            assert answer.status == 200
            ended.append(len(texts))

    long = asyncio.create_task(ask([f"{n} {TEXTS[1]}" for n in range(2048)]))
    await until(lambda: served.hosted.inside > 0)
    await asyncio.gather(*(ask([TEXTS[n]]) for n in range(8)))
    await long
    assert ended == [*[1] * 8, 2048]


@pytest.mark.parametrize("kind", ["embedding", "ranking"])
async def test_golden_entries_are_probed(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder, exported = request.getfixturevalue(kind)
    child = await Child.start(folder, runtime=ENCODER, threads=1, timeout=60)
    try:
        await probe(child, manifest(exported))
        entry = exported.golden[0]
        for wrong in (
            {**entry, "vector": entry["vector"][::-1]} if "vector" in entry else {**entry, "scores": [0.0] * 10},
            {**entry, "vector": [1.0]} if "vector" in entry else {**entry, "scores": [0.0]},
            {"odd": 1},
        ):
            with pytest.raises(NotReady, match="golden entry 1 of m"):
                await probe(child, Manifest(**{**_fields(manifest(exported)), "golden": [entry, wrong]}))
    finally:
        await child.close()
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(NotReady, match="no encoder that can be run"):
        await Child.start(broken, runtime=ENCODER, threads=1, timeout=60)


def _fields(one: Manifest) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}
