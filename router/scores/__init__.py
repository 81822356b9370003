"""Pure scores in [0, 1] of a student's answer against a reference; the same for offline evaluation and live shadow."""

from router.scores.score import SCORES, Score, answer_text, is_json, score

__all__ = ["SCORES", "Score", "answer_text", "is_json", "score"]
