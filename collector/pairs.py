"""Pairs: a student's answer and what it is compared with, and what the pair says of quality. Pure.

D = value - pair_value of a pair, by the route's reference (T: the teacher's answer; S: the student's):

    agreement   score(S, T)        1
    self        score(S, T1)       score(T2, T1)      T2: a second answer of the teacher; without one, no pair
    truth       score(S, truth)    score(T, truth)    when a client tells the right answer
    judge       1, 0.5 or 0        1 - value          S wins, neither does, T wins

A teacher's answer that was cut off or filtered is nothing to compare with. A student's call that failed makes no pair:
it is an error. An answer that came and is bad (see router.scores) scores 0; a judge is not asked about it.
"""

from collections.abc import Sequence

import msgspec

from collector.frames import Exchange
from collector.observe import Answered, Seen, observation, students
from collector.parse import Completion
from router import Arm, Asked, Metric, Observation, QualityPolicy, RoutePolicy, Similarity, Spec, score, why_bad

_NO_REFERENCE = ("length", "content_filter")


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """`observation`: what will be told, its values still to be found. `second`: another answer of the teacher."""

    observation: Observation
    student: Completion | None
    teacher: Completion
    second: Completion | None = None
    asked: Asked = Asked()


def pairs(exchange: Exchange, answers: Sequence[Answered], policy: RoutePolicy, asked: Asked) -> list[Pair]:
    """The pairs of an exchange. `answers`: the served call and the shadows, with what each said. `asked`: by its
    request."""
    said = [said for call, said in answers if call.arm is Arm.TEACHER and call.error is None]
    second = next((s for s in said[1:] if s is not None), None)
    found = []
    for seen in students(exchange, answers):
        teacher = seen.teacher[1] if seen.teacher else None
        if teacher is None or teacher.finish_reason in _NO_REFERENCE or seen.call.error is not None:
            continue
        if seen.deferred and not seen.call.body_bytes:
            continue  # a stream that was closed when its prefix was not sure enough
        inclusion = _inclusion(exchange, seen, policy)
        told = observation(exchange, seen, Metric.QUALITY, 0.0, inclusion=inclusion, measure=policy.measure)
        found.append(Pair(observation=told, student=seen.said, teacher=teacher, second=second, asked=asked))
    return found


def _inclusion(exchange: Exchange, seen: Seen, policy: RoutePolicy) -> float:
    """With which probability a request like this one became a pair. With `self`, the second answer of the teacher is
    drawn, whoever serves; else an answer that serves is audited, and so is a stream that was deferred, since its end is
    only waited for where an audit drew it. The teacher's own requests, and plain answers that were deferred, are
    compared as they come."""
    if policy.quality.reference == "self":
        return policy.quality.audit_rate
    free = exchange.decision.arm is not Arm.STUDENT or (seen.deferred and not exchange.stream)
    return 1.0 if free else exchange.decision.audited


def settled(
    pair: Pair, quality: QualityPolicy, *, truth: Completion | None = None, similarity: Similarity | None = None
) -> Observation | None:
    """What a pair says by `agreement`, `self` or, with the right answer, by `truth`; None where there is nothing to
    compare with. Raises TypeError where the score needs a similarity and none is given."""
    if quality.reference == "self" and pair.second is None:
        return None
    reference = pair.teacher if truth is None else truth
    other = {"self": pair.second, "truth": pair.teacher}.get(quality.reference)
    try:
        value = _score(quality.score, pair.student, reference, pair.asked, similarity)
        against = 1.0 if other is None else _score(quality.score, other, reference, pair.asked, similarity)
    except ValueError:
        return None
    return told(pair, value, against)


def student_is_bad(pair: Pair, quality: QualityPolicy) -> str | None:
    """Why the student's answer is bad whatever it is compared with, or None."""
    return why_bad(
        quality.score,
        answer=pair.student.message if pair.student else None,
        reference=pair.teacher.message,
        finish_reason=pair.student.finish_reason if pair.student else None,
        asked=pair.asked,
    )


def told(pair: Pair, value: float, pair_value: float) -> Observation:
    """The pair's observation."""
    return msgspec.structs.replace(pair.observation, value=value, pair_value=pair_value)


def _score(
    spec: Spec, given: Completion | None, reference: Completion, asked: Asked, similarity: Similarity | None
) -> float:
    return score(
        spec,
        answer=given.message if given else None,
        reference=reference.message,
        finish_reason=given.finish_reason if given else None,
        asked=asked,
        similarity=similarity,
    ).value
