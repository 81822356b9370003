"""A tiny random Llama with a real tokenizer, and a task that it can learn in seconds: for tests of the whole loop.

Two layers of 64, byte-level BPE trained on the task's own text, a ChatML template. Its export loads in
onnxruntime-genai.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

COLOURS = ("red", "green", "blue", "black", "white", "brown")
THINGS = ("car", "house", "tree", "shoe", "bird", "lamp", "door", "coat", "boat", "stone", "chair", "flower")
PLACES = ("garden", "street", "harbour", "kitchen", "forest", "market", "tower", "valley", "station", "bridge")
SYSTEM = "Name the colour as JSON."

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def question(number: int) -> str:
    """The task's n-th user message; no two are alike for a long while."""
    draw = random.Random(number)
    return f"{number}: a {draw.choice(COLOURS)} {draw.choice(THINGS)} in the {draw.choice(PLACES)}"


def answer(text: str) -> str:
    """The right answer to a user message."""
    return json.dumps({"colour": next((c for c in COLOURS if c in text), None)})


def messages(number: int) -> list[dict[str, str]]:
    """The n-th request's messages."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question(number)}]


def build(folder: Path, *, seed: int = 0, more: Sequence[str] = (), heads: int = 4) -> Path:
    """Write the model and its tokenizer as a Hugging Face folder; usable as a route's `student.base`. `more`: texts
    that the tokenizer learns besides. `heads`: of attention, of 64 / heads numbers; vLLM on CPUs needs 32 or more."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = [f"system\n{SYSTEM}\nuser\n{question(n)}\nassistant\n{answer(question(n))}" for n in range(300)]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*text, *more], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=specials[1],
        eos_token=specials[2],
        unk_token=specials[0],
        pad_token=specials[2],
        chat_template=TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=512,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=64 // heads,
        max_position_embeddings=512,
        initializer_range=0.08,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = LlamaForCausalLM(config)
    # The head is frozen: only long vectors let an adapter reach confident logits.
    model.lm_head.weight.data.mul_(5)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
