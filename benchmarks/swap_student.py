"""Students that say one word again and again, so that every answer tells whose it is, letter by letter.

A Llama whose layers do the usual work and add nothing: what comes next follows from the last token alone, and from a
line's end on it is the word, again and again. A stream that two students wrote could not look like one's.
"""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from exporters.models import GENAI, VLLM, Manifest, Store

# A character a token, and each has one successor: no letter comes twice in a word. All are as long.
WORDS = ("north ", "south ")
PROMPT = "Which way?"
GOLDEN_TOKENS = 8
_HIDDEN, _LAYERS, _CONTEXT = 64, 2, 512
_LOGIT = 16.0
_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def said(word: str, tokens: int) -> str:
    """The student's answer to anything, of so many tokens."""
    return (word * (tokens // len(word) + 1))[:tokens]


def dense(folder: Path, word: str) -> Path:
    """Write the student as a Hugging Face folder."""
    import torch  # noqa: PLC0415 - heavy, and the stand's own processes need none of these
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415 - likewise
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415 - likewise

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=list(_SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_SPECIALS[1],
        eos_token=_SPECIALS[2],
        unk_token=_SPECIALS[0],
        pad_token=_SPECIALS[2],
        chat_template=_TEMPLATE,
        model_max_length=_CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(fast),
        hidden_size=_HIDDEN,
        intermediate_size=3 * _HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=_HIDDEN // 2,
        max_position_embeddings=_CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    chain = [fast.encode(character, add_special_tokens=False)[0] for character in "\n" + word]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedded, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedded[:, : len(chain)] = 0.0
        embedded[chain] = 0.0
        head.zero_()
        for at, token in enumerate(chain):
            embedded[token, at] = 1.0  # scaled to a length of sqrt(_HIDDEN) by the last norm
            after = chain[at + 1] if at + 1 < len(chain) else chain[1]
            head[after, at] = _LOGIT / _HIDDEN**0.5
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def folders(folder: Path) -> dict[str, Path]:
    """Write the students as Hugging Face folders, as vLLM serves them, one a word."""
    return {word: dense(folder / word.strip(), word) for word in WORDS}


def onnx(folder: Path) -> dict[str, Path]:
    """Write the students as folders that onnxruntime-genai loads, one a word. The builder, which takes its time, writes
    the first; the other is its graph with the letters' rows and columns of the first and last weights exchanged."""
    first, second = WORDS
    written = {word: folder / word.strip() for word in WORDS}
    command = [sys.executable, "-W", "ignore", "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
    command += ["-i", str(dense(folder / "dense", first)), "-o", str(written[first]), "-c", str(folder / "cache")]
    subprocess.run(command, check=True, capture_output=True)
    _exchanged(written[first], written[second], [(a, b) for a, b in zip(first, second, strict=True) if a != b])
    return written


def _exchanged(source: Path, target: Path, letters: list[tuple[str, str]]) -> None:
    import onnx as library  # noqa: PLC0415 - likewise
    from onnx import numpy_helper  # noqa: PLC0415 - likewise

    shutil.copytree(source, target)
    vocabulary = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
    graph = library.load(source / "model.onnx")
    for tensor in graph.graph.initializer:
        axis = {"model.embed_tokens.weight": 0, "lm_head.MatMul.weight": 1}.get(tensor.name)
        if axis is not None:
            rows = numpy_helper.to_array(tensor).swapaxes(0, axis).copy()
            for a, b in letters:
                rows[[vocabulary[a], vocabulary[b]]] = rows[[vocabulary[b], vocabulary[a]]]
            tensor.CopyFrom(numpy_helper.from_array(rows.swapaxes(0, axis).copy(), tensor.name))
    for file in ("model.onnx", "model.onnx.data"):
        (target / file).unlink()
    library.save(graph, target / "model.onnx", save_as_external_data=True, location="model.onnx.data")


def golden(word: str) -> dict[str, Any]:
    """What exports record, here known by the weights: a token has the logit _LOGIT, and all others have 0."""
    others = len(_SPECIALS) + 256 - 1
    return {
        "messages": [{"role": "user", "content": PROMPT}],
        "answer": said(word, GOLDEN_TOKENS),
        "max_tokens": GOLDEN_TOKENS,
        "finish_reason": "length",
        "base_answer": None,
        "logprobs": [round(-math.log1p(others * math.exp(-_LOGIT)), 5)] * GOLDEN_TOKENS,
    }


def publish(store: Store, artefact: str, folder: Path, word: str, *, runtime: str = GENAI) -> None:
    """Put a written student into the store, with its golden answer."""
    manifest = Manifest(
        id=artefact,
        route="ways",
        kind="chat",
        runtime=runtime,
        base="word",
        base_revision="0",
        quantization="none" if runtime == VLLM else "fp32",
        created_at=1.0,
        files={},
        golden=[golden(word)],
    )
    store.put(folder, manifest)
