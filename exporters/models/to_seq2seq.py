"""A trained T5 (or mT5) becomes an artefact that the engine serves: two int8 graphs, the tokenizer, a card.

    encoder   prompt [1, t] -> keys and values for all the decoder's layers, [layers, heads, t, d]
    decoder   tokens [1, n], keys and values of the answer so far and of the prompt
                            -> logits [n, vocabulary], keys and values of the n tokens

What a prompt gives to the decoder is computed once, in the encoder's graph. The computation is written out here, since
transformers' own cache doesn't pass through the exporter; it is compared with transformers, before and after int8.
"""

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.models.encoder_onnx import LOADING, PROBES
from exporters.models.errors import ExportFailed, MissingArtefact
from exporters.models.golden import record
from exporters.models.int8 import quantize
from exporters.models.seq2seq_session import (
    CARD,
    DECODER_GRAPH,
    ENCODER_GRAPH,
    TOKENIZER,
    Seq2SeqCard,
    Seq2SeqGenerator,
    Seq2SeqSession,
)

LEAST_SAME = 0.95  # of the source's own greedy tokens are the artefact's choice, too
GOLDEN_TOKENS = 32
_USUAL_TOKENS = 512  # that T5 was trained on
_KINDS = ("t5", "mt5")


class ExportedSeq2Seq(msgspec.Struct, frozen=True, kw_only=True):
    """`golden`: of the manifest. `report`: how near it is to its source, and by what."""

    card: Seq2SeqCard
    golden: list[dict[str, Any]]
    report: dict[str, Any]


def export_seq2seq(source: Path, out: Path, *, texts: Sequence[str] = PROBES) -> ExportedSeq2Seq:
    """Into the existing, empty folder `out`. `source`: a Hugging Face folder. `texts`: prompts to compare on, held-out
    ones best. Raises MissingArtefact, ExportFailed."""
    import torch  # noqa: PLC0415 - heavy: only an export pays for it

    model, most = _load(source)
    encoder, decoder = _graphs(model)
    config = model.config
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    shape = (len(model.decoder.block), config.num_heads, config.d_kv)
    card = Seq2SeqCard(
        most_tokens=most, start=int(config.decoder_start_token_id), ends=tuple(map(int, ends)), shape=shape
    )
    size = torch.export.Dim
    past, read = {2: size("past", max=most)}, {2: size("read", max=most)}
    ids = torch.randint(5, 50, (1, 7))
    cache = [torch.randn(shape[0], shape[1], n, shape[2]) for n in (3, 3, 6, 6)]
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        floats = Path(scratch) / "floats.onnx"
        _write(encoder, (ids,), floats, {"input_ids": {1: size("tokens", max=most)}}, ["read_keys", "read_values"])
        quantize(floats, out / ENCODER_GRAPH)
        shapes = {
            "input_ids": {1: size("tokens", max=most)},
            **dict.fromkeys(("past_keys", "past_values"), past),
            **dict.fromkeys(("read_keys", "read_values"), read),
        }
        _write(decoder, (ids, *cache), floats, shapes, ["logits", "keys", "values"])
        quantize(floats, out / DECODER_GRAPH)
    shutil.copyfile(source / TOKENIZER, out / TOKENIZER)
    (out / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card)))
    session = Seq2SeqSession.load(out)
    prompts = [[{"role": "user", "content": text}] for text in texts]
    same, tokens = _same(model, session, prompts)
    if not same >= LEAST_SAME * tokens:
        raise ExportFailed(
            f"of {tokens} tokens that the source would say next the exported model says {same}, "
            f"less than {LEAST_SAME:.0%}"
        )
    golden = record(Seq2SeqGenerator(session), prompts, max_new_tokens=GOLDEN_TOKENS, base={})
    return ExportedSeq2Seq(card=card, golden=golden, report={"same_tokens": same / max(tokens, 1), "tokens": tokens})


def _load(source: Path) -> tuple[Any, int]:
    """The model in float32, and how many tokens it reads."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM  # noqa: PLC0415 - heavy

    from exporters.models.encoder_modules import most_tokens  # noqa: PLC0415 - with them

    for name in ("config.json", TOKENIZER):
        if not (source / name).is_file():
            raise MissingArtefact(f"{source} is no sequence model's Hugging Face folder: it holds no {name}")
    try:
        kind = AutoConfig.from_pretrained(source, local_files_only=True).model_type
        if kind not in _KINDS:
            raise ExportFailed(f"{source} is a {kind}; of sequence models {' and '.join(_KINDS)} can be exported")
        model = AutoModelForSeq2SeqLM.from_pretrained(source, **LOADING).float().eval()
    except (OSError, ValueError) as error:
        raise ExportFailed(f"{source} holds no sequence model that can be loaded: {error}") from error
    return model, most_tokens(source) or _USUAL_TOKENS


def _graphs(model: Any) -> tuple[Any, Any]:
    import torch  # noqa: PLC0415 - heavy

    def split(attention: Any, hidden: Any) -> Any:
        """[1, n, width] -> [heads, n, width of a head]."""
        return hidden[0].unflatten(-1, (attention.n_heads, attention.key_value_proj_dim)).transpose(0, 1)

    def attend(attention: Any, hidden: Any, keys: Any, values: Any, bias: Any) -> Any:
        scores = split(attention, attention.q(hidden)) @ keys.transpose(-1, -2)  # T5 doesn't scale them
        mixed = torch.softmax(scores if bias is None else scores + bias, dim=-1) @ values
        return attention.o(mixed.transpose(0, 1).flatten(1).unsqueeze(0))

    class Encoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any) -> Any:
            stack, length = self.model.encoder, input_ids.shape[1]
            hidden = stack.embed_tokens(input_ids)
            bias = stack.block[0].layer[0].SelfAttention.compute_bias(length, length)[0]
            for block in stack.block:
                part = block.layer[0]
                normed, own = part.layer_norm(hidden), part.SelfAttention
                keys, values = split(own, own.k(normed)), split(own, own.v(normed))
                hidden = block.layer[-1](hidden + attend(own, normed, keys, values, bias))
            hidden = stack.final_layer_norm(hidden)
            crosses = [block.layer[1].EncDecAttention for block in self.model.decoder.block]
            return (
                torch.stack([split(cross, cross.k(hidden)) for cross in crosses]),
                torch.stack([split(cross, cross.v(hidden)) for cross in crosses]),
            )

    class Decoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, past_keys: Any, past_values: Any, read_keys: Any, read_values: Any) -> Any:
            stack, before, length = self.model.decoder, past_keys.shape[2], input_ids.shape[1]
            hidden = stack.embed_tokens(input_ids)
            first = stack.block[0].layer[0].SelfAttention
            bias = first.compute_bias(length, before + length, past_seen_tokens=before)[0]
            later = torch.arange(before + length)[None, :] > torch.arange(length)[:, None] + before
            bias = bias.masked_fill(later, torch.finfo(torch.float32).min)
            new_keys, new_values = [], []
            for n, block in enumerate(stack.block):
                part, cross, last = block.layer
                normed, own = part.layer_norm(hidden), part.SelfAttention
                new_keys.append(split(own, own.k(normed)))
                new_values.append(split(own, own.v(normed)))
                keys = torch.cat([past_keys[n], new_keys[-1]], dim=1)
                values = torch.cat([past_values[n], new_values[-1]], dim=1)
                hidden = hidden + attend(own, normed, keys, values, bias)
                looked = attend(cross.EncDecAttention, cross.layer_norm(hidden), read_keys[n], read_values[n], None)
                hidden = last(hidden + looked)
            hidden = stack.final_layer_norm(hidden)
            if getattr(self.model.config, "scale_decoder_outputs", False):
                hidden = hidden * self.model.config.d_model**-0.5
            return self.model.lm_head(hidden)[0], torch.stack(new_keys), torch.stack(new_values)

    return Encoder().eval(), Decoder().eval()


def _write(model: Any, given: tuple[Any, ...], path: Path, shapes: dict[str, Any], outputs: list[str]) -> None:
    import torch  # noqa: PLC0415 - heavy

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter deprecates parts of itself
        program = torch.onnx.export(
            model,
            given,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=[*shapes],
            output_names=outputs,
            verbose=False,
        )
    if program is None:
        raise ExportFailed("torch wrote no graph of the sequence model")
    program.save(path, external_data=False)


def _same(model: Any, session: Seq2SeqSession, prompts: Sequence[Any]) -> tuple[int, int]:
    """How many of the source's greedy tokens are the artefact's choice after the same beginning, and of how many."""
    import torch  # noqa: PLC0415 - heavy

    same = tokens = 0
    for prompt in prompts:
        ids = session.tokens(prompt)[: session.card.most_tokens]
        with torch.inference_mode():
            line = model.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=GOLDEN_TOKENS, do_sample=False, num_beams=1,
            )[0].tolist()  # fmt: skip
        logits, _ = session.write(line[:-1], session.blank(), session.read(ids))
        same += int((logits.argmax(axis=1) == line[1:]).sum())
        tokens += len(line) - 1
    return same, tokens
