"""A dry run of a route's recipe: the whole configuration is built, and nothing is loaded or trained.

The base's architecture is made on the meta device, without weights, from its config.json: the one beside the weights
where the base is on this machine, else one that is carried with the preset. No code of a model's is run
(`trust_remote_code` is never given), and no hub is asked.
"""

from pathlib import Path
from typing import Any

import msgspec

from retrainer.base_models import PACKAGED, find, folder_of
from retrainer.errors import BaseModelError
from retrainer.recipes.estimate import Shape
from retrainer.recipes.template import check_template
from retrainer.train.sequence import METHODS, settings
from router.policy_student import RetrainPolicy, StudentPolicy

# What each recipe trains of its base: an adapter, or all weights.
_ADAPTED = ("lora", "logits", "topk", "on_policy", "preference", "self", "ensemble", "adapters", "uncertain")
_WHOLE = ("full", "hidden", "attention", "cascade", "pruned", "layerwise", "quantized")
TRAINED = {**dict.fromkeys(_ADAPTED, "lora"), "qlora": "qlora", **dict.fromkeys(_WHOLE, "full")}


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """`here`: whether the base's weights are on this machine. `settings`: of the training, all of them. `targets`: the
    layers that adapters sit on. `notes`: what an operator should know."""

    base: str
    here: bool
    architecture: str
    settings: dict[str, Any]
    shape: Shape
    targets: list[str]
    notes: list[str]


def check(student: StudentPolicy, retrain: RetrainPolicy, *, state: str | Path, carried: Path | None = None) -> Checked:
    """`carried`: a folder of folders, by a base's last name, with config.json and tokenizer_config.json. Raises
    BaseModelError for what can't be trained."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    from retrainer.train.chat import adapted  # noqa: PLC0415

    if student.recipe not in TRAINED:
        raise BaseModelError(
            f"the recipe {student.recipe} can't be tried dry: what it trains follows from the route's answers; "
            "`retort evaluate` tries it on them"
        )
    found = find(student.base, state).folder if student.base in PACKAGED else folder_of(student.base, state)
    folder = found or (carried / Path(student.base).name if carried else None)
    if folder is None or not (folder / "config.json").is_file():
        raise BaseModelError(
            f"{student.base} is not on this machine, and no config.json of it is carried with the preset; "
            f"`hf download {student.base}` fetches it where the network allows"
        )
    method = METHODS[TRAINED[student.recipe]]
    made = settings(retrain, method)
    try:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            weights = model.num_parameters()
            linear = _linear(model)
            if method != "full":
                model = adapted(model, made)
    except (ValueError, KeyError, OSError) as error:
        raise BaseModelError(f"{student.base}: transformers has no model for its config.json: {error}") from error
    trainable = [(n, w) for n, w in model.named_parameters() if w.requires_grad]
    text = config.get_text_config()
    heads, keys = text.num_attention_heads, getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Checked(
        base=student.base,
        here=found is not None,
        architecture=config.architectures[0] if config.architectures else type(model).__name__,
        settings=msgspec.to_builtins(made),
        shape=Shape(
            weights=weights,
            quantizable=linear,
            trainable=sum(w.numel() for _, w in trainable),
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            mlp=text.intermediate_size,
            queries=heads * width,
            values=keys * width,
            vocabulary=text.vocab_size,
        ),
        targets=sorted({n.split(".lora_")[0].rpartition(".")[2] for n, _ in trainable if ".lora_" in n}),
        notes=[*check_template(folder), *_beside(student.recipe)],
    )


def _beside(recipe: str) -> list[str]:
    if TRAINED[recipe] == recipe:
        return []
    return [
        f"{recipe} is estimated as {TRAINED[recipe]} on the whole base; teachers, assistants and the student's own "
        "answers take time and memory besides"
    ]


def _linear(model: Any) -> int:
    """Weights of the linear layers but the head, which QLoRA quantizes and adapters sit on."""
    import torch  # noqa: PLC0415 - heavy

    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return sum(m.weight.numel() for m in layers)
