"""A sequence model (T5) exported, and answering chats in the real worker process."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import tiny_model
import tiny_seq2seq
from aiohttp import web
from engine_fakes import version

from exporters.models import SEQ2SEQ, Manifest
from exporters.models.errors import ExportFailed, MissingArtefact
from exporters.models.seq2seq_session import Seq2SeqGenerator, Seq2SeqSession
from exporters.models.to_seq2seq import ExportedSeq2Seq, _graphs, export_seq2seq
from gateway.engines.child import Child
from gateway.engines.errors import NotReady
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.probe import probe
from gateway.engines.protocol import Done, Options, Piece, Started
from gateway.engines.seq2seq import Seq2SeqRuntime, Trimmed
from gateway.engines.server import create_app
from router import Events

QUESTIONS = [tiny_model.question(n) for n in range(400, 410)]

Made = tuple[Path, Path, ExportedSeq2Seq]


def asked(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Source, artefact, what was found."""
    root = tmp_path_factory.mktemp("t5")
    (root / "out").mkdir()
    source = tiny_seq2seq.build(root / "source")
    return source, root / "out", export_seq2seq(source, root / "out", texts=QUESTIONS)


@pytest.fixture(scope="module")
def wanted(made: Made) -> dict[str, str]:
    """What transformers itself says, by question."""
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(made[0])
    model = T5ForConditionalGeneration.from_pretrained(made[0]).eval()
    found = {}
    for text in QUESTIONS:
        with torch.inference_mode():
            line = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=32, do_sample=False)[0]
        found[text] = tokenizer.decode(line, skip_special_tokens=True)
    return found


@pytest.fixture
async def client(made: Made) -> AsyncIterator[openai.AsyncOpenAI]:
    child = await Child.start(made[1], runtime=SEQ2SEQ, threads=1, timeout=60)
    hosts = Hosts()
    hosts.add(Hosted(version("v1"), child, queue=99))
    runner = web.AppRunner(create_app(hosts, events=Events()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{}:{}/versions/v1/v1".format(*runner.addresses[0][:2])
    async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as made_client:
        yield made_client
    await runner.cleanup()
    await child.close()


async def test_it_answers_as_transformers_does_plain_and_streamed(
    client: openai.AsyncOpenAI, wanted: dict[str, str], made: Made
) -> None:
    assert sum(tiny_seq2seq.short(text) == answer for text, answer in wanted.items()) >= 6  # it has learnt something
    tokens = Seq2SeqSession.load(made[1], threads=1).tokens
    for text, answer in wanted.items():
        got = await client.chat.completions.create(model="m", messages=asked(text), temperature=0, max_tokens=32)
        assert got.choices[0].message.content == answer
        assert got.choices[0].finish_reason == "stop"
        assert got.usage.prompt_tokens == len(tokens(asked(text))) + 1
        assert got.usage.completion_tokens == len(tokens(asked(answer)))
        stream = await client.chat.completions.create(
            model="m", messages=asked(text), temperature=0, max_tokens=32, stream=True
        )
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == answer


async def test_what_a_chat_may_ask_for_works_here_too(client: openai.AsyncOpenAI, wanted: dict[str, str]) -> None:
    text, answer = next(iter(wanted.items()))
    ask = client.chat.completions.create
    cut = await ask(model="m", messages=asked(text), temperature=0, stop=answer.split()[1])
    assert cut.choices[0].message.content == answer.split()[0] + " "
    short = await ask(model="m", messages=asked(text), temperature=0, max_tokens=1, logprobs=True, top_logprobs=2)
    assert short.choices[0].finish_reason == "length"
    (token,) = short.choices[0].logprobs.content
    assert token.logprob == token.top_logprobs[0].logprob < 0
    assert token.token.startswith(" " + answer[0])
    draws = [
        (await ask(model="m", messages=asked(text), temperature=2, seed=seed)).choices[0].message.content
        for seed in (1, 1, *range(2, 8))
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


async def test_what_it_cannot_do_is_refused(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="m", messages=asked("a"), response_format={"type": "json_object"})
    assert caught.value.param == "response_format"
    with pytest.raises(openai.BadRequestError, match="reads 64 tokens") as caught:
        await client.chat.completions.create(model="m", messages=asked("red " * 200))
    assert caught.value.code == "context_length_exceeded"


async def test_golden_answers_are_probed(made: Made, tmp_path: Path) -> None:
    manifest = Manifest(
        id="m", route="r", kind="query", runtime=SEQ2SEQ, base="b", base_revision="0", quantization="int8",
        created_at=1.0, files={}, golden=made[2].golden,
    )  # fmt: skip
    assert len(manifest.golden) == 4
    child = await Child.start(made[1], runtime=SEQ2SEQ, threads=1, timeout=60)
    try:
        await probe(child, manifest)
        manifest.golden[0]["answer"] += "!"
        with pytest.raises(NotReady, match="golden answer 0"):
            await probe(child, manifest)
    finally:
        manifest.golden[0]["answer"] = manifest.golden[0]["answer"][:-1]
        await child.close()
    broken = shutil.copytree(made[1], tmp_path / "broken")
    (broken / "seq2seq.json").write_text("{}")
    with pytest.raises(NotReady, match="export the version again"):
        await Child.start(broken, runtime=SEQ2SEQ, threads=1, timeout=60)


async def test_an_answer_is_as_long_as_the_model_writes_at_most(made: Made, tmp_path: Path) -> None:
    """One that no token ends; the prompt's length is another matter."""
    endless = shutil.copytree(made[1], tmp_path / "endless")
    card = json.loads((endless / "seq2seq.json").read_text())
    (endless / "seq2seq.json").write_text(json.dumps(card | {"ends": [999]}))
    generator = Seq2SeqGenerator(Seq2SeqSession.load(endless, threads=1))
    child = await Child.start(endless, runtime=SEQ2SEQ, threads=1, timeout=60)
    try:
        for most in (None, 63, 64, 500):
            options = Options(temperature=0.0, max_tokens=most)
            *_, done = [event async for event in child.generate(asked(QUESTIONS[0]), options)]
            assert isinstance(done, Done)
            assert (done.finish_reason, done.completion_tokens) == ("length", min(most or 64, 64))
            (said,) = generator.generate([asked(QUESTIONS[0])], max_new_tokens=most or 500)
            assert (said.finish_reason, said.tokens) == ("length", done.completion_tokens)
    finally:
        await child.close()


def test_a_row_does_not_depend_on_its_company_nor_on_how_its_prompt_was_cut(made: Made) -> None:
    runtime = Seq2SeqRuntime(made[1], threads=1)
    rows = runtime.rows
    first, second = (runtime.encode(asked(text)) for text in QUESTIONS[:2])
    alone = [rows.read(0, first), *(rows.step([token])[0] for token in (20, 30))]
    rows.clear(0)
    assert rows.share(0, second) == rows.share(1, first) == 0
    rows.read(0, second)
    for piece in (first[:3], first[3:-1]):
        assert rows.read(1, piece).size == 0
    together = [rows.read(1, first[-1:]), rows.step([60, 20])[1]]
    rows.swap(0, 1)
    together.append(rows.step([30])[0])
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_the_space_before_the_first_word_goes_and_no_other(made: Made) -> None:
    told: list[Any] = []
    send = Trimmed(told.append)
    for number in (1, 2):
        send(Started(id=number, prompt_tokens=1, queue_seconds=0.0))
    for number, text in ((1, " red"), (2, ""), (1, " car"), (2, " blue")):
        send(Piece(id=number, text=text))
    assert [(e.id, e.text) for e in told if isinstance(e, Piece)] == [(1, "red"), (2, ""), (1, " car"), (2, "blue")]


def test_a_gated_untied_model_computes_what_transformers_computes(tmp_path: Path) -> None:
    import torch
    from transformers import T5ForConditionalGeneration

    source = tiny_seq2seq.build(tmp_path / "gated", steps=1, gated=True)
    model = T5ForConditionalGeneration.from_pretrained(source).eval()
    encoder, decoder = _graphs(model)
    ids, line = torch.randint(3, 60, (1, 30)), torch.randint(3, 60, (1, 25))
    with torch.inference_mode():
        keys, values = encoder(ids)
        blank = torch.zeros(2, 4, 0, 16)
        first, *past = decoder(line[:, :9], blank, blank, keys, values)
        second = decoder(line[:, 9:], *past, keys, values)[0]
        found = torch.cat([first, second])
        assert torch.allclose(found, model(input_ids=ids, decoder_input_ids=line).logits[0], atol=1e-4)


def test_what_is_no_t5_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtefact, match=r"holds no config\.json"):
        export_seq2seq(tmp_path, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ExportFailed, match="is a bart"):
        export_seq2seq(tmp_path, tmp_path)


def test_the_generator_says_what_the_engine_says(made: Made, wanted: dict[str, str]) -> None:
    generator = Seq2SeqGenerator(Seq2SeqSession.load(made[1], threads=1))
    answers = generator.generate([asked(text) for text in QUESTIONS], max_new_tokens=32)
    assert [one.text for one in answers] == list(wanted.values())
    assert generator.generate([asked(QUESTIONS[0])], max_new_tokens=1)[0].finish_reason == "length"
