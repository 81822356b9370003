"""The losses of distillation: pure functions of tensors, in nats, one value for each token, pair or vector.

z: logits [N, V]; N: the completion tokens of a batch, V: the vocabulary. p: the teacher's distribution, q: the
student's. Logits are taken as fp32. Hinton's T^2 keeps the gradient's size when T changes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, softmax

# Below this share of the mass nothing is told apart: it keeps log(1 - sum p) finite.
TINY = 1e-6


def soften(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(z / T), [N, V]: a teacher's soft targets."""
    return log_softmax(logits.float() / temperature, dim=-1)


def divergence(student: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(p || softmax(z_s / T)), [N]. `student`: logits [N, V]; `targets`: log p [N, V], already at T.

    Hinton, Vinyals, Dean 2015 (arXiv:1503.02531). For T to infinity it tends to |z_t - z_s|^2 / (2 V), both centred.
    """
    return temperature**2 * _kl(targets, soften(student, temperature))


def top_k_divergence(student: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
    """KL over k + 1 buckets, [N]: the k tokens that an API reports, and all others together (the tail, 1 - sum p).

    `student`: logits [N, V]. `ids`, `logprobs` [N, K]: the teacher's; a place that is not used has the log probability
    -inf. T is 1: what the tail holds at another temperature is not known. A coarse-grained KL is a lower bound of the
    full one (data-processing inequality), and equal to it where the tail is empty or has the same shape.
    """
    p = logprobs.float().exp()  # [N, K]
    q = log_softmax(student.float(), dim=-1).gather(-1, ids).masked_fill(p == 0, -torch.inf)
    log_p_tail = torch.log((1 - p.sum(dim=-1)).clamp(min=TINY))
    log_q_tail = torch.log((1 - q.exp().sum(dim=-1)).clamp(min=TINY))
    known = torch.where(p > 0, p * (logprobs.float() - q), torch.zeros_like(p)).sum(dim=-1)
    return known + log_p_tail.exp() * (log_p_tail - log_q_tail)


def generalised_jsd(student: Tensor, teacher: Tensor, *, beta: float, temperature: float = 1.0) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m), [N], for m = beta p + (1 - beta) q; both from logits [N, V] at T.

    beta 0 stands for KL(p || q), 1 for KL(q || p): the limits after division by beta and 1 - beta (Agarwal et al. 2023,
    "On-policy distillation of language models", arXiv:2306.13649).
    """
    p, q = soften(teacher, temperature), soften(student, temperature)
    if beta in (0.0, 1.0):
        return _kl(p, q) if beta == 0.0 else _kl(q, p)
    weights = torch.tensor([beta, 1 - beta], device=p.device).log()
    m = torch.logsumexp(torch.stack([p + weights[0], q + weights[1]]), dim=0)
    return beta * _kl(p, m) + (1 - beta) * _kl(q, m)


def mixture(teachers: Sequence[Tensor], weights: Sequence[float], temperature: float) -> Tensor:
    """log sum_i w_i softmax(z_i / T), [N, V]: the soft targets of an ensemble. `weights` are made to sum to 1.

    The mean of probabilities, not of logits (Hinton et al. 2015 allow both): a teacher that is sure outweighs those
    that know nothing, and can't veto what they hold possible.
    """
    shares = torch.tensor(list(weights), device=teachers[0].device)
    logs = torch.stack([soften(z, temperature) for z in teachers])  # [teachers, N, V]
    return torch.logsumexp(logs + (shares / shares.sum()).log()[:, None, None], dim=0)


def uncertain_targets(teacher: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """log p' [N, V]: the teacher's distribution, softer where it is unsure, and corrected where it is wrong.

    T_n = 1 + (T - 1) u_n with u_n = 1 - p_n(label), so that what it knows stays sharp. Where another token leads,
    p' = (1 - l) p + l e_label with the smallest l that puts the label level with it, l = d / (1 + d) for the distance
    d = max p - p(label): the order among the others stays. `labels` [N]: the tokens of the logged answers.

    After the idea of Calibrated Uncertainty Distillation (Kim et al. 2026, arXiv:2602.12687): shape the teacher's
    distribution before it is transferred, instead of its overconfidence. The closed form is ours.
    """
    labels = labels[:, None]
    unsure = 1 - softmax(teacher.float(), dim=-1).gather(-1, labels)  # [N, 1]
    p = softmax(teacher.float() / (1 + (temperature - 1) * unsure), dim=-1)
    behind = p.amax(dim=-1, keepdim=True) - p.gather(-1, labels)
    moved = behind / (1 + behind)
    return ((1 - moved) * p).scatter_add(-1, labels, moved).clamp(min=torch.finfo(torch.float32).tiny).log()


def hidden_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """|s - t|^2 / |t|^2 of hidden states [..., d], the student's already projected: layers and tokens whose states are
    large (the first token's are a thousand times the others': Sun et al. 2024, "Massive activations") don't outweigh
    the others. Without that division: FitNets (Romero et al. 2014), TinyBERT (Jiao et al. 2019)."""
    size = teacher.float().square().sum(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    return (student.float() - teacher.float()).square().sum(dim=-1) / size


def relation_divergence(student: Tensor, teacher: Tensor, seen: Tensor, *, heads: int) -> Tensor:
    """KL between self-attention relations, softmax(A A^T / sqrt(d_r)), for A: queries, keys or values; the mean over
    heads, [B, S]. MiniLMv2 (Wang et al. 2020, arXiv:2012.15828).

    `student` [B, P + S, D_s], `teacher` [B, P + S, D_t]: cut into `heads` relation heads each, so that neither the
    number of attention heads nor the width need agree. `seen` [B, S, P + S]: what each of the last S relates to.
    """
    p, q = (_relations(vectors, seen, heads) for vectors in (teacher, student))
    return (p.exp() * (p - q)).masked_fill(~seen[:, None], 0.0).sum(dim=-1).mean(dim=1)


def _relations(vectors: Tensor, seen: Tensor, heads: int) -> Tensor:
    cut = vectors.float().unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, heads, P + S, d_r]
    scores = cut[:, :, -seen.shape[1] :] @ cut.transpose(-1, -2) / cut.shape[-1] ** 0.5
    return log_softmax(scores.masked_fill(~seen[:, None], torch.finfo(torch.float32).min), dim=-1)


def preference(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Direct preference optimisation: -log sigmoid(beta (chosen - rejected)), [B].

    `chosen`, `rejected` [B]: log pi(y|x) - log pi_ref(y|x) of whole answers (sums over their tokens). Rafailov et al.
    2023 (arXiv:2305.18290); beta 0.1 is their default.
    """
    return -logsigmoid(beta * (chosen - rejected))


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of log probabilities [N, V], [N]."""
    return (p.exp() * (p - q)).sum(dim=-1)
