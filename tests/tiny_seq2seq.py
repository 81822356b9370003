"""A tiny T5 with a SentencePiece-like tokenizer, trained in seconds to shorten a query: "7: a red car in the garden"
becomes "red car garden"."""

import re
import string
from pathlib import Path
from typing import Any

import tiny_model


def short(text: str) -> str:
    """What the task asks for."""
    return re.sub(r"^\d+: a | in the", "", text)


def build(folder: Path, *, steps: int = 150, gated: bool = False) -> Path:
    """Write the model and its tokenizer as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = [*tiny_model.COLOURS, *tiny_model.THINGS, *tiny_model.PLACES, "a", "in", "the"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"\u2581{word}", -2.0) for word in words)]
    vocabulary += [(one, -6.0) for one in f"\u2581:{string.digits}{string.ascii_lowercase}"]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    torch.manual_seed(2)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=made.get_vocab_size(),
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=20,
            feed_forward_proj="gated-gelu" if gated else "relu",
            tie_word_embeddings=not gated,
            decoder_start_token_id=0,
        )
    )
    _train(model, fast, [tiny_model.question(n) for n in range(300)], steps)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def _train(model: Any, tokenizer: Any, texts: list[str], steps: int) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for step in range(steps):
        batch = [texts[(step * 16 + n) % len(texts)] for n in range(16)]
        asked = tokenizer(batch, return_tensors="pt", padding=True)
        wanted = tokenizer([short(text) for text in batch], return_tensors="pt", padding=True).input_ids
        wanted[wanted == 0] = -100
        loss = model(input_ids=asked.input_ids, attention_mask=asked.attention_mask, labels=wanted).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
