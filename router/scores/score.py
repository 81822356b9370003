"""How good an answer is, compared with a reference answer, and why: the one entry, offline and live.

A bad answer scores 0 whatever the score, and says why:
    missing         no answer could be read
    refusal         the `refusal` field is set, or the text declines while the reference doesn't
    content_filter  the upstream's filter ended it
    cut_off         its length limit ended it
    empty           no text, and no tool call where calls are scored
    invalid_json    the request asked for JSON, or the reference is JSON under json_fields, and the answer is none
    schema          the answer breaks the schema that the request declared
    unknown_tool    it calls a tool that the request doesn't offer
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from router.policy_quality import WeightedScore
from router.scores.asked import Asked
from router.scores.fields import json_fields
from router.scores.message import Message, answer_text, is_json, json_value, tool_calls
from router.scores.refusals import is_refusal
from router.scores.schema import keeps_to
from router.scores.texts import exact, numeric, rouge_l, token_f1
from router.scores.tools import tool_calls_f1
from router.scores.value import Score

Spec = str | tuple[WeightedScore, ...]
Similarity = Callable[[str, str], float]

_PLAIN: Mapping[str, Callable[[str, str], Score]] = {
    "exact": exact,
    "json_fields": json_fields,
    "rouge_l": rouge_l,
    "token_f1": token_f1,
}
SCORES = (*_PLAIN, "embedding", "numeric", "tool_calls")
_ENDED_BADLY = {"length": "cut_off", "content_filter": "content_filter"}
_NOTHING_ASKED = Asked()


def score(
    spec: Spec,
    *,
    answer: Message | None,
    reference: Message | None,
    finish_reason: str | None,
    asked: Asked = _NOTHING_ASKED,
    similarity: Similarity | None = None,
) -> Score:
    """Score an assistant message against the reference's; the mean of a weighted list, with its lowest part's reason.

    `finish_reason`: of the answer. `similarity`: of two texts, in [0, 1]; `embedding` needs it. Of a list, the parts
    for which the reference holds nothing (a text, without one) are left out. Raises KeyError for an unknown score,
    TypeError for `embedding` without a similarity, ValueError where the reference holds nothing to compare with: no
    text, JSON nested too deeply to be compared, or not the JSON that the request asked for.
    """
    wanted = parts(spec)
    comparable = [part for part in wanted if _has(reference, part)]
    if not comparable:
        raise ValueError("the reference holds no text to compare with")
    names = [part.score for part in wanted]
    _check_reference(reference, names, asked)
    reason = why_bad(wanted, answer=answer, reference=reference, finish_reason=finish_reason, asked=asked)
    if reason is not None:
        return Score(0.0, reason)
    got = [(part.weight, _compare(part, answer, reference, similarity)) for part in comparable]
    lowest = min((s for _, s in got), key=lambda s: s.value)
    if len(got) == 1:
        return lowest
    return Score(sum(w * s.value for w, s in got) / sum(w for w, _ in got), lowest.reason)


def parts(spec: Spec) -> tuple[WeightedScore, ...]:
    """A spec as a list. Raises KeyError for an unknown score."""
    if not isinstance(spec, str):
        return spec
    if spec not in SCORES:
        raise KeyError(f"no score {spec!r}; there are: {', '.join(sorted(SCORES))}")
    return _alone(spec)


@lru_cache(maxsize=len(SCORES))
def _alone(name: str) -> tuple[WeightedScore, ...]:
    return (WeightedScore.model_validate({"score": name}),)


def needs_similarity(spec: Spec) -> bool:
    """Whether a spec compares meanings, for which a model is needed."""
    return any(part.score == "embedding" for part in parts(spec))


def why_bad(
    spec: Spec,
    *,
    answer: Message | None,
    reference: Message | None,
    finish_reason: str | None,
    asked: Asked = _NOTHING_ASKED,
) -> str | None:
    """Why an answer is bad whatever it is compared with, or None."""
    if answer is None:
        return "missing"
    names = [part.score for part in parts(spec)]
    text, expected = answer_text(answer), answer_text(reference)
    if answer.get("refusal") or (is_refusal(text) and not is_refusal(expected)):
        return "refusal"
    if finish_reason in _ENDED_BADLY:
        return _ENDED_BADLY[finish_reason]
    calls = tool_calls(answer) if "tool_calls" in names else []
    if asked.tools and any(call.name not in asked.tools for call in calls):
        return "unknown_tool"
    if not text.strip():
        return None if calls else "empty"
    return _why_bad_json(text, asked, wanted=asked.json or ("json_fields" in names and is_json(expected)))


def _why_bad_json(text: str, asked: Asked, *, wanted: bool) -> str | None:
    if not wanted:
        return None
    try:
        value = json_value(text)
    except (ValueError, RecursionError):
        return "invalid_json"
    return None if asked.schema is None or keeps_to(value, asked.schema) else "schema"


def _check_reference(reference: Message | None, names: Sequence[str], asked: Asked) -> None:
    """The same for every answer, or bad answers would be counted where good ones are left out."""
    if "tool_calls" in names:
        tool_calls_f1((), tool_calls(reference))  # raises for arguments that can't be compared
    text = answer_text(reference)
    if not text.strip() or not (asked.json or "json_fields" in names):
        return
    try:
        value = json_value(text)
    except RecursionError as error:
        raise ValueError("the reference is nested too deeply to compare with") from error
    except ValueError as error:
        if asked.json:
            raise ValueError("the reference is not the JSON that was asked for") from error
        return
    if asked.schema is not None and not keeps_to(value, asked.schema):
        raise ValueError("the reference breaks the schema that was asked for")


def _has(reference: Message | None, part: WeightedScore) -> bool:
    """Whether there is something to compare with. For `tool_calls` a text is: then nothing was to be called."""
    return bool(answer_text(reference).strip()) or (part.score == "tool_calls" and bool(tool_calls(reference)))


def _compare(
    part: WeightedScore, answer: Message | None, reference: Message | None, similarity: Similarity | None
) -> Score:
    if part.score == "tool_calls":
        return tool_calls_f1(tool_calls(answer), tool_calls(reference))
    given, expected = answer_text(answer), answer_text(reference)
    if part.score == "numeric":
        return numeric(given, expected, part.tolerance)
    if part.score == "embedding":
        if similarity is None:
            raise TypeError("the score `embedding` compares meanings: pass similarity=, a function of two texts")
        if given.strip() == expected.strip():
            return Score(1.0, "equal")
        return Score(min(max(similarity(given, expected), 0.0), 1.0), "differs")
    return _PLAIN[part.score](given, expected)
