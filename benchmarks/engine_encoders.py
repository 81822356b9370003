"""Embeddings, rerank pairs and closed answers a second: the engine over HTTP against sentence-transformers.

    scripts/bench engine_encoders [--texts 512] [--pairs 256] [--rounds 3] [--threads 2]

Texts are package descriptions. The engine: one worker, asked by 1 and by 16 clients, a text a request, and by one
client with all the texts in one request. Against it, in this process and with as many threads: sentence-transformers on
PyTorch, all texts in one call (its best case; batches of 32), and one text a call. Its own ONNX backend needs optimum,
which has no release for this transformers; in its place the same fp32 graph in onnxruntime, on tokens by
sentence-transformers, in batches of 32 sorted by length as `encode` sorts them. The cross-encoder is MiniLM with a
random head: no trained one is on PyPI, and speed doesn't depend on the weights. Closed answers: a linear student of
three colours, so the figure is that of HTTP and process.

All contestants take turns within a round, and each ratio is of one round; what is reported is the median round.
Writes benchmarks/results/engine_encoders.json.
"""

import argparse
import asyncio
import gzip
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnxruntime as ort
import results_file
import torch
from engine_served import served
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from exporters.models import CLOSED, ENCODER
from exporters.models.closed import Card, write_card
from exporters.models.closed_form import Field, Form
from exporters.models.closed_linear import write_linear
from exporters.models.encoder_onnx import load_encoder, packaged_encoder, write_graph
from exporters.models.ngrams import Ngrams
from exporters.models.to_encoder import export_bi_encoder, export_cross_encoder

COLOURS = ("red", "green", "blue")
CLIENTS = (1, 16)
BATCH = 32
DOCUMENTS = 16  # of a query

Contestant = Callable[[], Awaitable[int]]


def texts(data: Path, count: int) -> list[str]:
    """Descriptions, drawn."""
    with gzip.open(data, "rt") as lines:
        found = [json.loads(line)["description"] for line in lines]
    return random.Random(5).sample(found, count)


def closed_student(folder: Path) -> None:
    """A linear one that knows three words."""
    ngrams = Ngrams.learn([f"a {colour} {thing}" for colour in COLOURS for thing in ("car", "house")], most=1000)
    weights = np.zeros((len(ngrams), 3), dtype=np.float32)
    for value, colour in enumerate(COLOURS):
        weights[ngrams.columns()[0][colour], value] = 8.0
    write_linear(folder, ngrams, weights, np.zeros(3, dtype=np.float32))
    form = Form(pieces=("", ""), fields=(Field(name="", values=COLOURS),))
    write_card(folder, Card(kind="linear", form=form, shared=0, temperatures=(1.0,)))


def cross_encoder(folder: Path) -> Path:
    """MiniLM with a random head, as a Hugging Face folder."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(packaged_encoder(), num_labels=1)
    model.classifier.weight.data.normal_(std=0.5)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(packaged_encoder()).save_pretrained(folder)
    return folder


def asking(client: aiohttp.ClientSession, url: str, bodies: list[dict[str, Any]], clients: int) -> Contestant:
    """Every body once, by so many clients; how many requests."""

    async def ask() -> int:
        left = list(reversed(bodies))

        async def one() -> None:
            while left:
                async with client.post(url, json=left.pop()) as answer:
                    answer.raise_for_status()
                    await answer.read()

        await asyncio.gather(*(one() for _ in range(clients)))
        return len(bodies)

    return ask


def calling(call: Callable[[], Any], count: int) -> Contestant:
    """A call of a library, in a thread."""

    async def run() -> int:
        await asyncio.to_thread(call)
        return count

    return run


def onnx_of(sentence: Any, scratch: Path, threads: int, given: list[str]) -> Callable[[], None]:
    """The fp32 graph on sentence-transformers' tokens."""
    encoder = load_encoder(packaged_encoder())
    write_graph(encoder, scratch / "fp32.onnx", output="vectors", most_tokens=encoder.most_tokens)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(scratch / "fp32.onnx"), options, providers=["CPUExecutionProvider"])

    def run() -> None:
        ordered = sorted(given, key=len, reverse=True)
        for at in range(0, len(ordered), BATCH):
            tokens = sentence.preprocess(ordered[at : at + BATCH])
            session.run(None, {name: tokens[name].numpy() for name in ("input_ids", "attention_mask")})

    return run


async def contestants(options: argparse.Namespace, scratch: Path, stack: AsyncExitStack) -> dict[str, Contestant]:
    """By name."""
    torch.set_num_threads(options.threads)
    folders = {name: scratch / name for name in ("bi", "cross", "closed")}
    for folder in folders.values():
        folder.mkdir()
    drawn = texts(options.data, options.texts)
    source = cross_encoder(scratch / "source")
    export_bi_encoder(packaged_encoder(), folders["bi"], texts=drawn[:16])
    export_cross_encoder(source, folders["cross"], asked=[(drawn[n], drawn[16:24]) for n in range(4)])
    closed_student(folders["closed"])
    client = await stack.enter_async_context(aiohttp.ClientSession())
    embed, rank, chat = [
        await stack.enter_async_context(served(folders[name], runtime, options.threads)) + path
        for name, runtime, path in (
            ("bi", ENCODER, "/embeddings"), ("cross", ENCODER, "/rerank"), ("closed", CLOSED, "/chat/completions")
        )
    ]  # fmt: skip
    sentence, cross = (
        SentenceTransformer(str(packaged_encoder()), device="cpu"),
        CrossEncoder(str(source), device="cpu"),
    )
    singles = [{"input": text, "encoding_format": "base64", "truncate": "END"} for text in drawn]
    queries = [
        {"query": drawn[at][:80], "documents": drawn[at : at + DOCUMENTS]}
        for at in range(0, min(options.pairs, len(drawn)), DOCUMENTS)
    ]
    pairs = [(one["query"], document) for one in queries for document in one["documents"]]
    colours = [{"messages": [{"role": "user", "content": f"a {COLOURS[n % 3]} car"}]} for n in range(1000)]

    async def whole() -> int:
        await asking(client, embed, [{"input": drawn, "encoding_format": "base64", "truncate": "END"}], 1)()
        return len(drawn)

    def ranked(clients: int) -> Contestant:
        async def run() -> int:
            await asking(client, rank, queries, clients)()
            return len(pairs)

        return run

    few = drawn[:64]
    return {
        **{
            f"embed, engine, {n} clients": asking(client, embed, singles if n > 1 else singles[:64], n) for n in CLIENTS
        },
        "embed, engine, one request": whole,
        "embed, sentence-transformers, one call": calling(lambda: sentence.encode(drawn, batch_size=BATCH), len(drawn)),
        "embed, sentence-transformers, a text a call": calling(lambda: [sentence.encode(t) for t in few], len(few)),
        "embed, fp32 graph, batches": calling(onnx_of(sentence, scratch, options.threads, drawn), len(drawn)),
        **{f"rank, engine, {n} clients": ranked(n) for n in CLIENTS},
        "rank, sentence-transformers, one call": calling(lambda: cross.predict(pairs, batch_size=BATCH), len(pairs)),
        **{f"closed, engine, {n} clients": asking(client, chat, colours, n) for n in CLIENTS},
    }


async def main(options: argparse.Namespace) -> None:
    """Rounds, by turns."""
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        async with AsyncExitStack() as stack:
            asked = await contestants(options, Path(scratch), stack)
            for round_ in range(options.rounds + 1):
                for name, run in asked.items():
                    began = time.perf_counter()
                    done = await run()
                    if round_:  # the first one warms up
                        rates.setdefault(name, []).append(done / (time.perf_counter() - began))

    def ratio(one: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True)), 2)

    figures = {name: round(statistics.median(found), 1) for name, found in rates.items()}
    told = {"threads": options.threads, "rounds": options.rounds, "per_second": figures}
    many, torch_one = "embed, engine, 16 clients", "embed, sentence-transformers, one call"
    goals = [
        results_file.goal("embeddings at 16 clients, of sentence-transformers'", ratio(many, torch_one), ">=", 1.0),
        results_file.goal("of the fp32 graph's in onnxruntime", ratio(many, "embed, fp32 graph, batches"), ">=", 1.0),
        results_file.goal(
            "embeddings at 1 client, of sentence-transformers' a text a call",
            ratio("embed, engine, 1 clients", "embed, sentence-transformers, a text a call"), ">=", 1.0,
        ),
        results_file.goal(
            "rerank pairs at 16 clients, of sentence-transformers'",
            ratio("rank, engine, 16 clients", "rank, sentence-transformers, one call"), ">=", 1.0,
        ),
    ]  # fmt: skip
    print(json.dumps(told, indent=2))
    if options.dry:
        results_file.show("engine_encoders", goals)
    else:
        results_file.write("engine_encoders", told, goals)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/packages.jsonl.gz"))
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="print, and write no result")
    asyncio.run(main(parser.parse_args()))
