"""Converts a GGUF file of a Llama model into a Hugging Face folder: dense fp32 weights and a right tokenizer.

transformers can read GGUF too, but its tokenizer conversion leaks byte-level pieces for this family, and it refuses
to save the loaded model until the quantizer is taken out; what is needed is short.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from retrainer.errors import BaseModelError

_CONTROL = 3  # a token type of GGUF: a special token, never made from text

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def convert(source: Path, folder: Path) -> None:
    """Write config, weights and tokenizer into `folder`. Raises BaseModelError for another family or tokenizer."""
    reader = GGUFReader(str(source))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields.get("general.architecture") != "llama":
        raise BaseModelError(f"{source.name} holds a {fields.get('general.architecture')} model; only llama is read")
    if fields.get("tokenizer.ggml.model") != "gpt2" or fields.get("tokenizer.ggml.pre") != "smollm":
        raise BaseModelError(f"{source.name}: its tokenizer is not the byte-level BPE of SmolLM")
    config = _config(fields, tied=all(t.name != "output.weight" for t in reader.tensors))
    config.save_pretrained(folder)
    _tokenizer(fields).save_pretrained(folder)
    save_file(_weights(reader, config), folder / "model.safetensors", metadata={"format": "pt"})
    generation = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    (folder / "generation_config.json").write_text(json.dumps({**generation, "pad_token_id": config.pad_token_id}))


def _config(fields: dict[str, Any], *, tied: bool) -> LlamaConfig:
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        tie_word_embeddings=tied,
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
    )


def _weights(reader: GGUFReader, config: LlamaConfig) -> dict[str, np.ndarray[Any, Any]]:
    weights = {}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for tensor in reader.tensors:
        dense = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        parts = tensor.name.split(".")  # token_embd.weight, blk.7.attn_q.weight
        if parts[0] != "blk":
            weights[f"{_TOP[parts[0]]}.weight"] = dense
            continue
        if parts[2] in heads:
            dense = _unpermute(dense, heads[parts[2]])
        weights[f"model.layers.{parts[1]}.{_LAYER[parts[2]]}.weight"] = dense
    return weights


def _unpermute(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Undo llama.cpp's interleaving of the rotary halves: rows [heads, half, 2] -> [heads, 2, half]."""
    rows, columns = weight.shape
    return np.ascontiguousarray(
        weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def _tokenizer(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    pieces = fields["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [p for p, kind in zip(pieces, fields["tokenizer.ggml.token_type"], strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(p, special=True, normalized=False) for p in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=pieces[fields["tokenizer.ggml.bos_token_id"]],
        eos_token=pieces[fields["tokenizer.ggml.eos_token_id"]],
        unk_token=pieces[fields["tokenizer.ggml.unknown_token_id"]],
        pad_token=pieces[fields["tokenizer.ggml.padding_token_id"]],
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
