"""Tiny random encoders with a real WordPiece tokenizer, as sentence-transformers and Hugging Face write them."""

import json
import re
from pathlib import Path
from typing import Any

import tiny_model

TEXTS = [tiny_model.question(n) for n in range(60)]


def tokenizer(folder: Path, *, most_tokens: int) -> Any:
    """Write one; lower case, [CLS] text [SEP], and pairs. Its words are listed, not learnt: a WordPieceTrainer breaks
    ties otherwise in every process, and so would make another encoder of the same weights."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for text in TEXTS for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    letters = sorted({letter for word in words for letter in word})
    known = dict.fromkeys([*specials, *letters, *(f"##{letter}" for letter in letters), *words])
    made = Tokenizer(models.WordPiece({word: n for n, word in enumerate(known)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=most_tokens,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)


def shape(**more: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=0,
        **more,
    )


def bi_encoder(
    folder: Path, *, pooling: str = "mean", dense: int | None = None, prefix: str = "", most_tokens: int = 48
) -> Path:
    """A folder as sentence-transformers writes it: pooling, a projection to `dense` dimensions, the norm."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(5)
    plain(folder / "plain", most_tokens=most_tokens)
    parts = [Transformer(str(folder / "plain")), Pooling(32, pooling_mode=pooling)]
    parts += [Dense(32, dense)] if dense else []
    prompts = {"prompts": {"query": prefix}, "default_prompt_name": "query"} if prefix else {}
    SentenceTransformer(modules=[*parts, Normalize()], device="cpu", **prompts).save(str(folder / "bi"))
    return folder / "bi"


def plain(folder: Path, *, most_tokens: int = 48) -> Path:
    """A Hugging Face folder of a BERT."""
    import torch
    from transformers import BertModel

    torch.manual_seed(5)
    BertModel(shape(), add_pooling_layer=False).save_pretrained(folder)
    tokenizer(folder, most_tokens=most_tokens)
    return folder


def cross_encoder(folder: Path, *, labels: int = 1, activation: str | None = None) -> Path:
    """A Hugging Face folder of a BERT with a random head."""
    import torch
    from transformers import BertForSequenceClassification

    torch.manual_seed(6)
    BertForSequenceClassification(shape(num_labels=labels)).save_pretrained(folder)
    tokenizer(folder, most_tokens=48)
    if activation:
        config = json.loads((folder / "config.json").read_text())
        config["sentence_transformers"] = {"activation_fn": f"torch.nn.modules.{activation}"}
        (folder / "config.json").write_text(json.dumps(config))
    return folder
