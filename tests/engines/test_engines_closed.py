"""A student of closed answers in the real worker process, behind the engine's HTTP server, asked by OpenAI's client."""

import math
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openai
import pytest
from aiohttp import web
from engine_fakes import version

from exporters.models import CLOSED, Calibration, Confidence, Manifest, write_atomic
from exporters.models.closed import Card, ClosedModel, blend, decide, read_card, write_card
from exporters.models.closed_form import Field, Form
from exporters.models.closed_linear import write_linear
from exporters.models.confidence import FILE, NOVELTY_FILE, Gate
from exporters.models.errors import CorruptArtefact
from exporters.models.ngrams import Ngrams, Reader
from exporters.models.novelty import Neighbours
from gateway.engines.child import Child
from gateway.engines.closed import BATCH, ClosedSchedule
from gateway.engines.errors import NotReady, Unfit
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.probe import probe
from gateway.engines.protocol import Cancel, Done, Event, Generate, Options
from gateway.engines.server import create_app
from router import Events

SYSTEM = {"role": "system", "content": "Which colour? JSON."}
COLOURS = ("red", "green", "blue")
TEXTS = [f"a {colour} {thing}" for colour in COLOURS for thing in ("car", "house", "tree")]
FORM = Form(pieces=('{"colour": ', "}"), fields=(Field(name="colour", values=('"red"', '"green"', '"blue"')),))


def asked(text: str) -> list[dict[str, str]]:
    return [SYSTEM, {"role": "user", "content": text}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact that knows three words, with a novelty gate."""
    made = tmp_path_factory.mktemp("closed")
    ngrams = Ngrams.learn(TEXTS, most=1000)
    words, _ = ngrams.columns()
    weights = np.zeros((len(ngrams), 3), dtype=np.float32)
    for value, colour in enumerate(COLOURS):
        weights[words[colour], value] = 8.0
    write_linear(made, ngrams, weights, np.zeros(3, dtype=np.float32))
    write_card(made, Card(kind="linear", form=FORM, shared=1, temperatures=(1.0,)))
    Neighbours.of([asked(t) for t in TEXTS]).save(made / NOVELTY_FILE)
    gate = Calibration(method="mean_probability", reason="a test", novelty=Gate(threshold=0.6, examples=9))
    write_atomic(made / FILE, msgspec.json.encode(gate))
    return made


@pytest.fixture
async def child(folder: Path) -> AsyncIterator[Child]:
    started = await Child.start(folder, runtime=CLOSED, threads=1, timeout=60)
    yield started
    await started.close()


@pytest.fixture
async def client(child: Child) -> AsyncIterator[openai.AsyncOpenAI]:
    hosts = Hosts()
    hosts.add(Hosted(version("v1"), child, queue=99, selective=True))
    runner = web.AppRunner(create_app(hosts, events=Events()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    url = f"http://{host}:{port}/versions/v1/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as made:
        yield made
    await runner.cleanup()


async def test_openais_client_gets_the_teachers_form_plain_and_streamed(client: openai.AsyncOpenAI) -> None:
    ask = client.chat.completions
    got = await ask.with_raw_response.create(model="m", messages=asked("the green car"))
    answer = got.parse()
    assert answer.choices[0].message.content == '{"colour": "green"}'
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("stop", 1)
    sure = float(got.headers["x-retort-confidence"])
    assert 0.9 < sure < 1.0
    stream = await ask.with_raw_response.create(
        model="m", messages=asked("the green car"), stream=True, stream_options={"include_usage": True}
    )
    assert float(stream.headers["x-retort-confidence"]) == sure  # before the first byte
    chunks = [chunk async for chunk in stream.parse()]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == '{"colour": "green"}'
    assert chunks[-1].usage.total_tokens == 4
    cut = await ask.create(model="m", messages=asked("the green car"), stop="green")
    assert cut.choices[0].message.content == '{"colour": "'


async def test_what_is_like_nothing_learnt_has_no_confidence(client: openai.AsyncOpenAI) -> None:
    got = await client.chat.completions.with_raw_response.create(model="m", messages=asked("Wem gehört dieses Zebra?"))
    assert float(got.headers["x-retort-confidence"]) == 0.0


@pytest.mark.parametrize(
    ("name", "value"), [("logprobs", True), ("n", 2), ("tools", [{"type": "function", "function": {"name": "f"}}])]
)
async def test_what_it_cannot_do_is_refused_by_name(client: openai.AsyncOpenAI, name: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="m", messages=asked("red"), **{name: value})
    assert caught.value.param == name


async def test_an_answer_in_the_form_that_was_asked_for_is_given_and_another_is_not(client: openai.AsyncOpenAI) -> None:
    def form(*colours: str) -> Any:
        schema = {"type": "object", "properties": {"colour": {"enum": [*colours]}}, "required": ["colour"]}
        return {"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}}

    ask = client.chat.completions.create
    loose = form(*COLOURS)
    loose["json_schema"]["schema"] |= {"properties": {"none": {}, **loose["json_schema"]["schema"]["properties"]}}
    for shape in (form(*COLOURS), loose, {"type": "json_object"}):
        answer = await ask(model="m", messages=asked("the green car"), response_format=shape)
        assert answer.choices[0].message.content == '{"colour": "green"}'
    with pytest.raises(openai.BadRequestError, match="chooses among whole answers") as caught:
        await ask(model="m", messages=asked("the green car"), response_format=form("rot", "blau"))
    assert caught.value.param == "response_format"


async def test_golden_answers_are_probed_in_the_worker_itself(child: Child) -> None:
    golden = {"messages": asked("a blue house"), "answer": '{"colour": "blue"}', "max_tokens": 1}
    manifest = Manifest(
        id="m", route="r", kind="chat", runtime=CLOSED, base="b", base_revision="0", quantization="float16",
        created_at=1.0, files={}, golden=[golden],
    )  # fmt: skip
    await probe(child, manifest)
    wrong = msgspec.structs.replace(manifest, golden=[{**golden, "answer": '{"colour": "red"}'}])
    with pytest.raises(NotReady, match="golden answer 0"):
        await probe(child, wrong)


async def test_a_broken_artefact_and_an_unknown_runtime_are_not_ready(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    write_card(broken, msgspec.structs.replace(read_card(broken), form=Form(pieces=("", ""), fields=FORM.fields)))
    (broken / "ngrams.json").write_bytes(b'{"words": {}, "parts": {}}')
    with pytest.raises(NotReady, match="export the version again"):
        await Child.start(broken, runtime=CLOSED, threads=1, timeout=60)
    with pytest.raises(Unfit, match="this engine runs onnxruntime-genai, closed"):
        await Child.start(folder, runtime="vllm", threads=1, timeout=60)


def test_requests_are_answered_in_batches_and_a_cancelled_one_is_not(folder: Path) -> None:
    told: list[Event] = []
    turns = ClosedSchedule(ClosedModel.load(folder), told.append, confidence=Confidence())
    for number in range(BATCH + 3):
        turns.take(Generate(id=number, messages=asked("red"), options=Options(), at=0.0))
    turns.take(Cancel(1))
    turns.turn()
    assert [e.id for e in told if isinstance(e, Done)] == [0, *range(2, BATCH + 1)]
    assert not turns.idle
    turns.turn()
    assert turns.idle
    assert len([e for e in told if isinstance(e, Done)]) == BATCH + 2


def test_a_linear_student_is_served_without_torch_scikit_learn_and_onnx_runtime(folder: Path) -> None:
    program = (
        "import sys, pathlib\nfrom gateway.engines.turns import load\n"
        f"load('closed', pathlib.Path({str(folder)!r}), threads=1, cache_gb=1.0, send=print)\n"
        "print(sorted({'torch', 'sklearn', 'scipy', 'onnxruntime', 'onnxruntime_genai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_field_is_chosen_at_its_temperature_and_the_answers_probability_is_their_product() -> None:
    form = Form(
        pieces=("", "/", ""), fields=(Field(name="a", values=("x", "y")), Field(name="b", values=("0", "1", "2")))
    )
    card = Card(kind="linear", form=form, shared=0, temperatures=(2.0, 1.0))
    found = decide(card, np.array([1.0, 3.0, 0.0, 0.0, 0.0], dtype=np.float32))
    assert found.text == "y/0"
    assert found.logprobs[0] == pytest.approx(np.log(1 / (1 + np.exp(-1.0)) / 3))


def test_two_students_words_are_blended_field_by_field() -> None:
    one, other = (np.log(np.array(p, dtype=np.float32)) for p in ([0.9, 0.1, 0.5, 0.5], [0.5, 0.5, 0.2, 0.8]))
    found = np.exp(blend([2, 2], [1.0, 0.5], one + 3.0, other - 2.0))
    assert found == pytest.approx([0.9, 0.1, math.sqrt(0.5 * 0.2), math.sqrt(0.5 * 0.8)], rel=1e-5)


def test_ngrams_weigh_as_scikit_learn_does() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [*TEXTS, "a red red car", "green green green tree"]
    ngrams = Ngrams.learn(texts, most=1000)
    columns, weights = Reader(ngrams).row("a red red car in a blue house")
    known = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"\w+").fit(texts)
    row = known.transform(["a red red car in a blue house"])
    names = list(ngrams.words)
    ours = {names[c]: w for c, w in zip(columns, weights, strict=True) if c < len(names)}
    theirs = {name: row[0, at] for name, at in known.vocabulary_.items() if row[0, at]}
    assert ours == pytest.approx(theirs)


def test_a_form_that_does_not_hold_together_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed.json").write_text('{"kind": "linear", "form": {"pieces": [""], "fields": []}}')
    with pytest.raises(CorruptArtefact, match="export the version again"):
        read_card(tmp_path)
