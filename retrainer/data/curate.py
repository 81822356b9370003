"""Which logged exchanges can become examples: the checks that hold for every route, in their order. Pure."""

import re
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from collector.record import Answer, Interaction, TokenLogprob
from retrainer.data.render import plain_messages, plain_text
from router import split_thinking
from router.decision import Arm
from router.eligible import ineligible
from router.offered import uses_tools
from router.policy import RoutePolicy
from router.policy_scrub import ENTITIES
from router.scores import Asked, asked, keeps_to, tool_calls, why_bad
from router.thinking import written

SIMILAR = 0.8  # Jaccard index of 5-byte shingles from which two prompts are near-duplicates, see minhash.py


def masking(names: str) -> str:
    """A pattern of what scrubbers write in place of a kind of data: <PERSON_3f2a>, <PERSON_1>, <PERSON>; but of no tag
    that is closed further on. `names`: alternatives."""
    return rf"<(?P<kind>{names})(?:_?[0-9a-f]+>|>(?!(?s:.*?)</(?P=kind)>))"


# What the scrubber writes where a route asks for placeholders; surrogates never look like this.
PLACEHOLDER = re.compile(masking("|".join(ENTITIES)))

Unserved = Callable[[Mapping[str, Any]], bool]  # of a request's body

# What of a request says how its answer is drawn; a seed would draw the same again.
SAMPLING = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "frequency_penalty", "presence_penalty",
    "reasoning_effort",
)  # fmt: skip
_INVALID = ("invalid_json", "schema", "unknown_tool")


class Side(StrEnum):
    """Where a group's examples go."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


HELD_OUT = (Side.VALIDATION, Side.TEST)


class Example(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prompt ({role, content} messages ending with the user's) and the teacher's answer to it. Tools, their calls and
    results stand in both as text (`exporters.models.tool_text`); what was offered has its names in `asked`.

    `subject`: hashed, whose data it is ("" where nobody said); an erasure finds it by that when the log has forgotten
    the record. `offset`: in the interaction log. `group`: records that must not be separated by a split. `asked`: what
    the request asked for besides, for scoring. `weight`: of its loss, or of its score; the mean is 1 over what is
    learnt from, and over what is held out. `rejected`: a student's whole answer to the same, where it gave another.
    `logprobs`: the answer's tokens with the teacher's alternatives, where they were told. `corrected`: it is no
    teacher's answer, but what somebody said is right. `reasoning`: what the teacher thought before it, to be learnt
    with it; "" where there is none, or it isn't kept. `teacher`: UPSTREAM/MODEL whose answer it is; "" where it is
    nobody's of the route (corrected, imported). `imported`: another system has logged it, or it was made from nothing.
    `sampling`: how the request wanted its answer drawn, by the API's names.
    """

    id: str
    offset: int
    at: float
    cluster: str
    subject: str = ""
    messages: list[dict[str, str]]
    answer: str
    group: str = ""
    asked: Asked = Asked()
    weight: float = 1.0
    rejected: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    corrected: bool = False
    reasoning: str = ""
    teacher: str = ""
    imported: bool = False
    sampling: dict[str, Any] = {}

    @property
    def said(self) -> str:
        """All that a student learns to say."""
        return written(self.reasoning, self.answer)

    @property
    def parameters(self) -> dict[str, Any]:
        """What a request says besides its messages that asks for an answer such as this one."""
        form = self.asked.response_format
        return {**self.sampling, **({} if form is None else {"response_format": form})}

    def is_of(self, subject: str, ids: Collection[str]) -> bool:
        """Whether it is of this hashed subject, or was made of one of these records."""
        return (subject != "" and self.subject == subject) or self.id in ids


class Kept(msgspec.Struct, frozen=True):
    """An example, or the reason (a short constant) why a record gave none. `refused`: the teacher declined, in the
    field that the protocol has for it. `messages`: the prompt, where it can be read, whether or not it is of use."""

    example: Example | None
    reason: str | None
    refused: bool = False
    messages: list[dict[str, str]] | None = None


def example_of(
    record: Interaction,
    offset: int,
    *,
    correction: str | None = None,
    keep_reasoning: bool = False,
    tools: bool = False,
    teachers: Collection[str] | None = None,
    unserved: Unserved | None = None,
) -> Kept:
    """The example that one exchange gives: the teacher's answer, whoever served the user, or the right answer in its
    place. A student's answer never becomes one. Thinking in the answer's text is no part of it; `keep_reasoning`: it is
    learnt as well. (Whose texts may not be kept never reaches the log.) `tools`: whether the route's students learn to
    call tools. `teachers`: from whom they may learn, None for whoever is logged as one; an import that names none of
    the route's has the operator's word for it. `unserved`: whether no student may ever answer such a request."""
    messages = plain_messages(record.request, tools=tools)
    kept = _kept(record, offset, messages, correction, keep_reasoning=keep_reasoning, tools=tools, teachers=teachers)
    if kept.example is not None and unserved is not None and unserved(record.request):
        kept = Kept(None, "not_served")
    return msgspec.structs.replace(kept, messages=messages)


def _kept(
    record: Interaction,
    offset: int,
    messages: list[dict[str, str]] | None,
    correction: str | None,
    *,
    keep_reasoning: bool,
    tools: bool,
    teachers: Collection[str] | None,
) -> Kept:
    text, refused, reasoning, teacher = correction, False, "", ""
    if correction is not None and (reason := _invalid(record.request, {"content": correction})):
        return Kept(None, reason)
    wanted = asked(record.request)
    calls = tools and bool(wanted.tools)
    logprobs: tuple[TokenLogprob, ...] = ()
    if text is None:
        answers = [a for a in record.answers if a.arm is Arm.TEACHER]
        answer = next((a for a in answers if teachers is None or _teaches(a, record, teachers)), None)
        if answer is None:
            return Kept(None, "other_teacher" if answers else "no_teacher_answer")
        teacher = answer.upstream or ""
        if reason := _unusable(answer) or _invalid(record.request, answer.message):
            return Kept(None, reason)
        text = plain_text(answer.message, tools=calls)
        logprobs = () if tool_calls(answer.message) else answer.logprobs  # they are of the text alone
        if text is not None:
            reasoning, text = split_thinking(text)
            reasoning = (answer.reasoning or reasoning) if keep_reasoning else ""
        refusal = answer.message.get("refusal") if answer.message else None
        if isinstance(refusal, str) and refusal.strip() and not (text or "").strip():
            text, refused, reasoning, logprobs = refusal, True, "", ()
    if messages is None or text is None:
        return Kept(None, "tools" if uses_tools(record.request) and not tools else "not_text")
    if not text.strip():
        return Kept(None, "empty_answer")
    if PLACEHOLDER.search(text) or PLACEHOLDER.search(reasoning):
        return Kept(None, "placeholder")
    example = Example(
        id=record.id,
        offset=offset,
        at=record.at,
        cluster=record.cluster,
        subject=record.subject,
        messages=messages,
        answer=text,
        asked=wanted,
        rejected=_rejected(record, text, keep_reasoning=keep_reasoning, tools=calls),
        logprobs=logprobs,
        corrected=correction is not None,
        reasoning=reasoning,
        teacher=teacher,
        imported=record.source != "",
        sampling={name: record.request[name] for name in SAMPLING if record.request.get(name) is not None},
    )
    return Kept(example, None, refused)


def unserved(policy: RoutePolicy) -> Unserved:
    """What is asked that no student of the route may answer, as the router has it."""

    def found(request: Mapping[str, Any]) -> bool:
        size = len(msgspec.json.encode(request))  # about that of the body
        return policy.student is not None and ineligible(policy, request, size, tools=policy.learns_tools) is not None

    return found


def _teaches(answer: Answer, record: Interaction, teachers: Collection[str]) -> bool:
    return record.source != "" if answer.upstream is None else answer.upstream in teachers


def _rejected(record: Interaction, text: str, *, keep_reasoning: bool, tools: bool) -> str | None:
    """A student's whole answer that is not the teacher's, with its thinking where the teacher's is learnt."""
    for answer in record.answers:
        if answer.arm is not Arm.STUDENT or _unusable(answer) is not None:
            continue
        said = plain_text(answer.message, tools=tools)
        if said and said != text:
            said = written(answer.reasoning or "", said) if keep_reasoning else said
            if not PLACEHOLDER.search(said):
                return said
    return None


def _unusable(answer: Answer) -> str | None:
    if answer.status != 200 or answer.error is not None:
        return "teacher_failed"
    if answer.finish_reason == "content_filter":
        return "content_filter"
    if answer.finish_reason not in ("stop", "tool_calls", "function_call"):
        return "unfinished"
    return None


def _invalid(request: Mapping[str, Any], message: Mapping[str, Any] | None) -> str | None:
    """Why an answer is not what the request itself asked for: its JSON, its schema, its tools."""
    reason = why_bad("tool_calls", answer=message, reference=message, finish_reason=None, asked=asked(request))
    if reason in _INVALID:
        return reason
    shapes = dict(_parameters(request))
    called = [(call.arguments, shapes[call.name]) for call in tool_calls(message) if call.name in shapes]
    return "tool_arguments" if any(not keeps_to(arguments, shape) for arguments, shape in called) else None


def _parameters(request: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The JSON Schema of each offered tool's arguments."""
    tools, functions = (v if isinstance(v := request.get(key), list) else [] for key in ("tools", "functions"))
    offered = [tool.get("function") for tool in tools if isinstance(tool, Mapping)]
    described = [f for f in (*offered, *functions) if isinstance(f, Mapping)]
    return [
        (str(f.get("name")), parameters) for f in described if isinstance(parameters := f.get("parameters"), Mapping)
    ]
