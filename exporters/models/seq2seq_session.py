"""An exported T5 on ONNX Runtime: `encoder.onnx` reads a prompt once, `decoder.onnx` writes on it, pass by pass."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from exporters.models.errors import CorruptArtefact
from exporters.models.genai import Generated, Messages, Tick
from exporters.models.processors import processors

CARD, ENCODER_GRAPH, DECODER_GRAPH, TOKENIZER = "seq2seq.json", "encoder.onnx", "decoder.onnx", "tokenizer.json"

Floats = npt.NDArray[np.float32]


class Seq2SeqCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`most_tokens`: of a prompt, and of an answer. `start`: the token that an answer is begun with, `ends` those that
    end it. `shape`: of the cache: layers, heads, width of a head."""

    most_tokens: int
    start: int
    ends: tuple[int, ...]
    shape: tuple[int, int, int]


class Read(msgspec.Struct, frozen=True):
    """What the encoder made of a prompt: the keys and values that the decoder looks at, [layers, heads, t, width]."""

    keys: Floats
    values: Floats


class Written(msgspec.Struct, frozen=True):
    """What the decoder has read of an answer, [layers, heads, tokens, width]."""

    keys: Floats
    values: Floats


class Seq2SeqSession:
    """A loaded artefact. `threads`: of ONNX Runtime; by default as many as this process may use processors."""

    def __init__(self, folder: Path, card: Seq2SeqCard, *, threads: int | None) -> None:
        import onnxruntime as ort  # noqa: PLC0415 - heavy
        from tokenizers import Tokenizer  # noqa: PLC0415 - heavy

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or processors()
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # every pass has another shape
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.card = card
        self.folder = folder
        self._encoder, self._decoder = (
            ort.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER_GRAPH, DECODER_GRAPH)
        )
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # a mark that a text spells is text

    @classmethod
    def load(cls, folder: Path, *, threads: int | None = None) -> "Seq2SeqSession":
        """Raises CorruptArtefact."""
        path = folder / CARD
        try:
            card = msgspec.json.decode(path.read_bytes(), type=Seq2SeqCard)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptArtefact(f"{path} can't be used: {error}; export the version again") from error
        try:
            made = cls(folder, card, threads=threads)
            read = made.read(made.tokens([{"role": "user", "content": "ready?"}]))
            logits, _ = made.write([card.start], made.blank(), read)
        except Exception as error:  # the runtimes raise their own kinds, some of them plain Exception
            raise CorruptArtefact(f"{folder} holds no sequence model that can be run: {error}") from error
        if not np.isfinite(logits).all():
            raise CorruptArtefact(f"{folder} computes logits that are not finite")
        return made

    def tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Of a prompt, its end token included: the messages' contents, a line each."""
        return list(self._tokenizer.encode("\n".join(m["content"] for m in messages)).ids)

    def text(self, tokens: Sequence[int]) -> str:
        """Without special tokens."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def blank(self) -> Written:
        """Nothing written yet."""
        layers, heads, width = self.card.shape
        nothing = np.zeros((layers, heads, 0, width), dtype=np.float32)
        return Written(nothing, nothing)

    def read(self, tokens: Sequence[int]) -> Read:
        """One pass of the encoder over a prompt."""
        return Read(*self._encoder.run(None, {"input_ids": np.array([tokens], dtype=np.int64)}))

    def write(self, tokens: Sequence[int], written: Written, read: Read) -> tuple[Floats, Written]:
        """One pass of the decoder: the logits after each of `tokens`, [n, vocabulary], and what is written then."""
        given: dict[str, Any] = {
            "input_ids": np.array([tokens], dtype=np.int64),
            "past_keys": np.ascontiguousarray(written.keys),
            "past_values": np.ascontiguousarray(written.values),
            "read_keys": read.keys,
            "read_values": read.values,
        }
        logits, keys, values = self._decoder.run(None, given)
        joined = (np.concatenate(pair, axis=2) for pair in ((written.keys, keys), (written.values, values)))
        return np.asarray(logits, dtype=np.float32), Written(*joined)


class Seq2SeqGenerator:
    """Greedy answers, one after another: for evaluation and golden answers."""

    def __init__(self, session: Seq2SeqSession) -> None:
        self._session = session

    def length(self, answer: str) -> int:
        """How many tokens an answer takes, without the end token."""
        return len(self._session.tokens([{"role": "assistant", "content": answer}])) - 1

    def generate(
        self,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        drafts: Sequence[str] | None = None,
        tick: Tick | None = None,
    ) -> list[Generated]:
        """Answers in the prompts' order; `tick(done)` is called after each. Every pass writes one token: nothing is
        guessed, whatever `drafts` says."""
        answers = []
        for done, messages in enumerate(prompts, start=1):
            answers.append(self._answer(messages, max_new_tokens))
            if tick:
                tick(done)
        return answers

    def _answer(self, messages: Messages, most: int) -> Generated:
        card = self._session.card
        read, written = self._session.read(self._session.tokens(messages)), self._session.blank()
        line, logprobs = [card.start], list[float]()
        while len(line) <= min(most, card.most_tokens) and line[-1] not in card.ends:
            logits, written = self._session.write(line[-1:], written, read)
            row = logits[-1].astype(np.float64)
            line.append(int(row.argmax()))
            logprobs.append(-float(np.log(np.exp(row - row.max()).sum())))
        stopped = line[-1] in card.ends
        return Generated(
            text=self._session.text(line[1:]).strip(" "),
            finish_reason="stop" if stopped else "length",
            tokens=len(line) - 1,
            logprobs=tuple(logprobs),
        )


def pieces(folder: Path) -> Any:
    """The artefact's tokenizer.json, as data."""
    return json.loads((folder / TOKENIZER).read_text("utf-8"))
