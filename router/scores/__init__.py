"""Pure scores of a student's answer against a reference, in [0, 1] (Kendall: [-1, 1]); the same for offline evaluation
and live shadow."""

from router.scores.asked import Asked, asked
from router.scores.fields import leaves
from router.scores.message import Message, answer_text, is_json, json_value, tool_calls
from router.scores.ranking import kendall, mrr, ndcg_at_k, recall_at_k
from router.scores.refusals import is_refusal
from router.scores.schema import keeps_to
from router.scores.score import SCORES, Similarity, Spec, needs_similarity, parts, score, why_bad
from router.scores.value import Score, f1

__all__ = [
    "SCORES",
    "Asked",
    "Message",
    "Score",
    "Similarity",
    "Spec",
    "answer_text",
    "asked",
    "f1",
    "is_json",
    "is_refusal",
    "json_value",
    "keeps_to",
    "kendall",
    "leaves",
    "mrr",
    "ndcg_at_k",
    "needs_similarity",
    "parts",
    "recall_at_k",
    "score",
    "tool_calls",
    "why_bad",
]
