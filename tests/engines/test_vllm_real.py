"""The engine before a real vLLM, with tiny models: versions of their own servers, adapters on one, and faults."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
import tiny_model
from engine_fakes import FakeCollector, FakeRegistry, until, version
from vllm_engine import START, Engine, settings
from vllm_service import python
from vllm_students import MOST, QUESTION, Torch, build_adapter, golden, publish

from collector import socket_path
from exporters.models import Store
from gateway.engines.agent import Seams, run
from gateway.engines.reconcile import Timing
from router import EventKind, Events

pytestmark = [
    pytest.mark.service,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),  # peft's use of transformers
]

TIMING = Timing(tick=0.05, grace=0.4, drain=20.0, hang=30.0, first_backoff=0.3, longest_backoff=2.0)
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "sure": {"type": "boolean"}},
    "required": ["colour", "sure"],
    "additionalProperties": False,
}


class Both(msgspec.Struct):
    """`says`: what torch says to QUESTION as each version."""

    whole: Engine
    adapters: Engine
    says: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Both]:
    python()
    root = tmp_path_factory.mktemp("vllm")
    a, b = (tiny_model.build(root / name, seed=seed, heads=2) for name, seed in (("a", 0), ("b", 1)))
    one, two = (build_adapter(a, root / name, seed=seed) for name, seed in (("one", 1), ("two", 2)))
    base = Torch(a)
    known = {"a": base, "b": Torch(b), "one": Torch(a, one), "two": Torch(a, two)}
    says = {name: student.greedy(QUESTION)[0] for name, student in known.items()}
    assert len(set(says.values())) == 4, "a mixed-up version would be seen"
    whole, adapters = Store(root / "whole"), Store(root / "adapters")
    publish(whole, "a", a, golden(base))
    publish(whole, "b", b, golden(known["b"], base))
    publish(adapters, "one", one, golden(known["one"], base))
    publish(adapters, "two", two, golden(known["two"], base))
    publish(adapters, "wrong", two, golden(known["one"], base))
    publish(adapters, "large", build_adapter(a, root / "large", seed=3, rank=128), golden(known["one"], base))
    async with AsyncExitStack() as stack:

        async def start(state: Path, store: Store, first: str, named: Path, **vllm: Any) -> Engine:
            config, registry, stop = settings(state, store, **vllm), FakeRegistry(), asyncio.Event()
            registry.set(version(first))
            collector = await stack.enter_async_context(FakeCollector(socket_path(config.state)))
            seams = Seams(open_registry=lambda url: registry, timing=TIMING)  # type: ignore[arg-type, return-value]
            task = asyncio.create_task(run(config, name="local", events=Events(), stop=stop, seams=seams))

            async def end() -> None:
                stop.set()
                await task

            stack.push_async_callback(end)
            client = await stack.enter_async_context(aiohttp.ClientSession())
            return Engine(registry, collector, client, store, state, named)

        made = Both(
            whole=await start(root / "w", whole, "a", root / "whole"),
            adapters=await start(root / "l", adapters, "one", a, adapters_on=str(a)),
            says=says,
        )
        await asyncio.gather(made.whole.ready("a"), made.adapters.ready("one"))
        yield made


async def test_a_version_answers_as_torch_does(both: Both) -> None:
    """Its golden answers were asked before it was ready; they hold log probabilities, too."""
    status, body = await both.whole.ask("a", logprobs=True, top_logprobs=3)
    choice = body["choices"][0]
    assert (status, body["model"], choice["message"]["content"]) == (200, "a", both.says["a"])
    assert body["usage"]["completion_tokens"] == MOST
    tokens = choice["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode("utf-8", "replace") == both.says["a"]
    expected = Torch(both.whole.store.path("a")).greedy(QUESTION)[1]
    assert [token["logprob"] for token in tokens] == pytest.approx(expected, abs=0.01)
    assert all(token["top_logprobs"][0]["logprob"] == token["logprob"] for token in tokens), "greedy: the likeliest"


async def test_streams_stop_strings_seeds_and_limits(both: Both) -> None:
    engine, says = both.whole, both.says["a"]
    url = engine.registry.endpoints["a"]
    assert await engine.stream(url) == ("a", says, "length")
    stop = says[6:9]
    model, text, ended = await engine.stream(url, stop=[stop])
    assert (model, text, ended) == ("a", says[: says.index(stop)], "stop")
    drawn = [(await engine.ask("a", temperature=1, seed=seed))[1] for seed in (5, 5, 6)]
    texts = [body["choices"][0]["message"]["content"] for body in drawn]
    assert texts[0] == texts[1] != texts[2]
    long = [{"role": "user", "content": "a red car " * 400}]
    status, body = await engine.ask("a", messages=long)
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")


async def test_an_answer_may_have_to_fit_a_schema(both: Both) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    status, body = await both.whole.ask("a", response_format=form, max_tokens=60, logprobs=True)
    choice = body["choices"][0]
    assert status == 200
    found = json.loads(choice["message"]["content"])
    assert (found["colour"] in ("red", "green"), isinstance(found["sure"], bool)) == (True, True)
    assert min(token["logprob"] for token in choice["logprobs"]["content"]) < -3, "of the free model, which was forced"
    refused = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"not": {"type": "null"}}}}
    status, body = await both.whole.ask("a", response_format=refused)
    assert (status, body["error"]["param"]) == (400, "response_format")


async def test_adapters_come_and_go_on_one_server_always_under_a_new_name(both: Both) -> None:
    engine = both.adapters
    engine.registry.set(version("one"), version("two"))
    await engine.ready("one", "two")
    for name in ("one", "two"):
        assert (await engine.ask(name))[1]["choices"][0]["message"]["content"] == both.says[name]
    folder = engine.state / "vllm/local/adapters"
    [first] = folder.glob("*.one.*")
    engine.registry.set(version("two"))
    await engine.ready("two")
    await until(lambda: not first.exists(), seconds=30)
    engine.registry.set(version("one"), version("two"))
    await engine.ready("one", "two")
    [again] = folder.glob("*.one.*")
    assert again.name != first.name
    assert (await engine.ask("one"))[1]["choices"][0]["message"]["content"] == both.says["one"]


async def test_an_adapter_that_is_not_what_was_exported_is_rejected_and_the_others_go_on(both: Both) -> None:
    engine = both.adapters
    await engine.ready("one", "two")
    engine.registry.set(version("one"), version("two"), version("large"))
    await until(lambda: bool(engine.collector.of(EventKind.UNREADY, "large")), seconds=60)
    told = engine.collector.of(EventKind.UNREADY, "large")[0].data
    assert "vLLM refuses the adapter (status 500): Call to add_lora method failed: LoRA rank 128" in told["reason"]
    assert not told["hopeless"], "its --max-lora-rank is the configuration's"
    engine.registry.set(version("one"), version("two"), version("wrong"))
    await until(lambda: bool(engine.collector.of(EventKind.UNREADY, "wrong")), seconds=60)
    [unready] = engine.collector.of(EventKind.UNREADY, "wrong")
    assert unready.data["hopeless"]
    assert "golden answer 0 of wrong has" in unready.data["reason"]
    assert set(engine.registry.endpoints) == {"one", "two"}
    assert (await engine.ask("two"))[1]["choices"][0]["message"]["content"] == both.says["two"]


async def test_a_swap_under_streams_fails_and_mixes_none(both: Both) -> None:
    engine, seen, stop = both.whole, [], asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            live = engine.registry.want[-1]
            url = engine.registry.endpoints.get(live) or engine.registry.endpoints["a"]
            seen.append(await engine.stream(url))

    clients = [asyncio.create_task(client()) for _ in range(3)]
    engine.registry.set(version("a"), version("b"))
    await engine.ready("a", "b")
    engine.registry.set(version("b"))
    await engine.ready("b")
    await until(lambda: sum(model == "b" for model, _, _ in seen[-20:]) == 20, seconds=60)
    stop.set()
    await asyncio.gather(*clients)
    assert {model for model, _, _ in seen} == {"a", "b"}
    assert all((text, ended) == (both.says[model], "length") for model, text, ended in seen)
    await until(lambda: len(engine.cores()) == 1, seconds=30)


async def test_a_server_that_is_killed_in_a_stream_is_an_honest_error_and_is_back(both: Both) -> None:
    engine = both.whole
    heard: list[list[str]] = [[], [], []]  # of each client's stream that goes on
    name = engine.registry.want[-1]
    await engine.ready(name)
    url = engine.registry.endpoints[name]
    ready = len(engine.collector.of(EventKind.READY, name))

    async def client(pieces: list[str]) -> tuple[str, str]:
        """Streams, one after the other, until one ends with an error: its text, and the error's code."""
        while True:
            pieces.clear()
            _, text, ended = await engine.stream(url, heard=pieces, max_tokens=200)
            if ended != "length":
                return text, ended
            assert text.startswith(both.says[name])

    async def killed_in_a_stream() -> None:
        """Held until what is under way has arrived, the core is killed if that left a stream in its middle."""
        [core] = engine.cores()
        while True:
            await until(lambda: any(heard), seconds=60)
            os.kill(core, signal.SIGSTOP)
            await asyncio.sleep(0.5)
            if any(heard):
                return os.kill(core, signal.SIGKILL)
            os.kill(core, signal.SIGCONT)

    asked = [asyncio.create_task(client(pieces)) for pieces in heard]
    await asyncio.wait_for(killed_in_a_stream(), 120)
    seen = await asyncio.wait_for(asyncio.gather(*asked), 60)
    broken = [ended for text, ended in seen if text]  # others may have been between two streams
    assert broken
    assert set(broken) <= {"worker_gone", "decode_failed"}
    assert all(text[:10] == both.says[name][: len(text[:10])] for text, _ in seen)
    await until(lambda: bool(engine.collector.of(EventKind.UNREADY, name)), seconds=60)
    assert not engine.collector.of(EventKind.UNREADY, name)[-1].data["hopeless"]
    await until(lambda: len(engine.collector.of(EventKind.READY, name)) > ready, seconds=START)
    assert (await engine.ask(name))[1]["choices"][0]["message"]["content"] == both.says[name]


async def test_a_core_that_hangs_while_its_server_answers_that_it_is_well_is_seen(both: Both) -> None:
    engine = both.adapters
    await until(lambda: bool(engine.registry.endpoints), seconds=START)
    name, url = next(iter(engine.registry.endpoints.items()))
    told = len(engine.collector.of(EventKind.UNREADY, name))
    assert (await engine.ask(name))[0] == 200
    [core] = engine.cores()
    os.kill(core, signal.SIGSTOP)
    _, _, ended = await asyncio.wait_for(engine.stream(url), 90)
    assert ended == "worker_gone"
    await until(lambda: len(engine.collector.of(EventKind.UNREADY, name)) > told, seconds=60)
    assert not engine.collector.of(EventKind.UNREADY, name)[-1].data["hopeless"]
    await until(lambda: not Path(f"/proc/{core}").exists(), seconds=30)
