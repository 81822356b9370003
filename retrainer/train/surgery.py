"""Structured pruning: a model becomes shallower or narrower, and remains one that transformers loads.

What is kept is chosen by activations on the route's own examples (Minitron, Muralidharan et al. 2024,
arXiv:2407.14679). Pruning nothing changes no logit. For decoders built as Llama's: RMSNorm (as many a layer as there
are), separate projections, a gated MLP.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from math import isclose
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cosine_similarity

from retrainer.errors import CycleError
from retrainer.train.features import decoder_layers

# Widths stay multiples of it: quantizers share a scale among 32 weights, and pack the 4-bit zero points in pairs.
ROUND_TO = 64

Read = Callable[[Any], None]  # lets a model read some examples


def spread(layers: int, kept: int) -> list[int]:
    """`kept` layers, evenly spread, first and last among them: every second one for a half (DistilBERT, Sanh et al.
    2019)."""
    if kept == 1:
        return [0]
    return [round(i * (layers - 1) / (kept - 1)) for i in range(kept)]


def most_important(importance: Sequence[float], kept: int) -> list[int]:
    """The numbers of the `kept` greatest, in their order."""
    return sorted(sorted(range(len(importance)), key=lambda i: -importance[i])[:kept])


def layer_importance(model: Any, read: Read) -> list[float]:
    """Block influence of each layer: 1 - mean cosine of what goes in and what comes out (ShortGPT, Men et al. 2024)."""
    layers = decoder_layers(model)
    sums, counts = [0.0] * len(layers), [0] * len(layers)

    def hook(number: int) -> Any:
        def add(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            similar = cosine_similarity(before.float(), after.float(), dim=-1)
            similar[(before == after).all(dim=-1)] = 1.0  # also where both are zero, as a padding token's may be
            sums[number] += float((1 - similar).sum())
            counts[number] += similar.numel()

        return add

    _observed(read, model, [layer.register_forward_hook(hook(i), with_kwargs=True) for i, layer in enumerate(layers)])
    return [s / n for s, n in zip(sums, counts, strict=True)]


def ffn_importance(model: Any, read: Read) -> list[torch.Tensor]:
    """Mean absolute activation [intermediate] of each layer's neurons, over all tokens that are read."""
    return _mean_inputs(model, read, [_linear(layer, "mlp.down_proj") for layer in decoder_layers(model)])


def hidden_importance(model: Any, read: Read) -> torch.Tensor:
    """Mean absolute activation [hidden] of the channels behind the layers' norms, summed over the norms."""
    names = ("self_attn.q_proj", "mlp.gate_proj")
    behind = [_linear(layer, name) for layer in decoder_layers(model) for name in names]
    return torch.stack(_mean_inputs(model, read, behind)).sum(dim=0)


def keep_layers(model: Any, kept: Sequence[int]) -> None:
    """Leave these layers, in their order."""
    body, config, deep = model.get_decoder(), model.config, len(decoder_layers(model))
    body.layers = torch.nn.ModuleList([body.layers[i] for i in kept])
    for number, layer in enumerate(body.layers):
        layer.self_attn.layer_idx = number  # its place in the cache
    config.num_hidden_layers = len(kept)
    for name, each in vars(config).items():  # of each layer: whether it rotates, how it attends
        if "layer" in name and isinstance(each, list | tuple) and len(each) == deep:
            setattr(config, name, [each[i] for i in kept])


def keep_ffn(model: Any, kept: Sequence[torch.Tensor]) -> None:
    """Leave these neurons (as many in every layer) in the feed-forward blocks."""
    for layer, neurons in zip(decoder_layers(model), kept, strict=True):
        for name in ("gate_proj", "up_proj"):
            _rows(_linear(layer, f"mlp.{name}"), neurons)
        _columns(_linear(layer, "mlp.down_proj"), neurons)
    model.config.intermediate_size = len(kept[0])


def keep_hidden(model: Any, kept: torch.Tensor) -> None:
    """Leave these channels of the residual stream; attention heads stay as they are."""
    body, config, width = model.get_decoder(), model.config, model.config.hidden_size
    config.head_dim = getattr(config, "head_dim", None) or width // config.num_attention_heads
    body.embed_tokens.weight = torch.nn.Parameter(body.embed_tokens.weight.detach()[:, kept].clone())
    body.embed_tokens.embedding_dim = len(kept)
    for layer in body.layers:
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
            _columns(_linear(layer, name), kept)
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            _rows(_linear(layer, name), kept)
        weighted = [part for part in layer.children() if hasattr(part, "weight")]
        for norm in (part for part in weighted if part.weight.shape == (width,)):  # Llama has two, Gemma 2 four
            norm.weight = torch.nn.Parameter(norm.weight.detach()[kept].clone())
    body.norm.weight = torch.nn.Parameter(body.norm.weight.detach()[kept].clone())
    _columns(model.lm_head, kept)
    config.hidden_size = len(kept)
    _scale_embeddings(model, width)
    model.tie_weights()


def check_shapes(model: Any) -> None:
    """Raises CycleError where a pruned model isn't one that transformers builds from its configuration."""
    with torch.device("meta"):
        built = type(model)(deepcopy(model.config))
    wanted, found = ({n: tuple(w.shape) for n, w in one.named_parameters()} for one in (built, model))
    if wrong := sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n)):
        raise CycleError(
            f"{type(model).__name__} can't be pruned so: {wrong[0]} would have the shape {found.get(wrong[0])}, and "
            f"transformers builds {wanted.get(wrong[0])}; leave retrain.distil.keep_ffn and keep_hidden at 1"
        )


def check_written(model: Any, folder: Path) -> None:
    """Raises CycleError where a pruned model that is loaded from its folder says something else."""
    ids = torch.arange(1, 9, device=model.device)[None]
    with torch.no_grad():
        wanted = model.eval()(input_ids=ids).logits
        loaded = type(model).from_pretrained(folder, dtype=model.dtype).to(model.device).eval()
        apart = float((loaded(input_ids=ids).logits - wanted).abs().max())
    if apart > 1e-3 * float(wanted.abs().max()):
        raise CycleError(
            f"{type(model).__name__} can't be pruned: loaded again its logits differ by {apart:.2g}, so something of "
            "its configuration counts layers or channels that are gone"
        )


def rounded(share: float, size: int) -> int:
    """How many of `size` channels a share leaves: a multiple of ROUND_TO, at least one of it; all where it is 1."""
    return size if share >= 1 else max(ROUND_TO, round(share * size / ROUND_TO) * ROUND_TO)


def _mean_inputs(model: Any, read: Read, modules: Sequence[Any]) -> list[torch.Tensor]:
    sums = [torch.zeros(module.in_features, device=module.weight.device) for module in modules]
    counts = [0] * len(modules)

    def hook(number: int) -> Any:
        def add(module: Any, args: Any) -> None:
            sums[number] += args[0].float().abs().flatten(0, -2).sum(dim=0)
            counts[number] += args[0].shape[:-1].numel()

        return add

    _observed(read, model, [module.register_forward_pre_hook(hook(i)) for i, module in enumerate(modules)])
    return [s / n for s, n in zip(sums, counts, strict=True)]


def _observed(read: Read, model: Any, hooks: Sequence[Any]) -> None:
    try:
        with torch.no_grad():
            read(model)
    finally:
        for hook in hooks:
            hook.remove()


def _scale_embeddings(model: Any, width: int) -> None:
    """Where embeddings are multiplied by the root of the width (Gemma), what that lost goes into their weights; where
    the head shares these, it goes out of the last norm's gain: its weight, or 1 + that."""
    embed, norm = model.get_decoder().embed_tokens, model.get_decoder().norm
    scale = getattr(embed, "embed_scale", None)
    if scale is None or not isclose(float(scale), width**0.5, rel_tol=1e-3):
        return
    embed.embed_scale = torch.full_like(scale, embed.embedding_dim**0.5)
    lost = (width / embed.embedding_dim) ** 0.5
    embed.weight.data.mul_(lost)
    if model.config.tie_word_embeddings:
        with torch.no_grad():
            beside = (norm(torch.ones_like(norm.weight)) - norm.weight).round()
            norm.weight.data = (norm.weight + beside) / lost - beside


def _linear(layer: Any, name: str) -> Any:
    try:
        found = layer.get_submodule(name)
    except AttributeError:
        found = None
    if not isinstance(found, torch.nn.Linear):
        raise CycleError(f"{type(layer).__name__} has no {name}: only decoders built as Llama's can be pruned in width")
    return found


def _rows(linear: Any, kept: torch.Tensor) -> None:
    linear.weight = torch.nn.Parameter(linear.weight.detach()[kept].clone())
    linear.bias = None if linear.bias is None else torch.nn.Parameter(linear.bias.detach()[kept].clone())
    linear.out_features = len(kept)


def _columns(linear: Any, kept: torch.Tensor) -> None:
    linear.weight = torch.nn.Parameter(linear.weight.detach()[:, kept].clone())
    linear.in_features = len(kept)
