"""Scenarios: conversations by category, with quotas, in which the teacher plays the user and the tools too.

The teacher answers as it would in production; only what it says as itself is learnt from. The user is played warmer
(USER_TEMPERATURE), and told which of how many conversations this is, so that they differ.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from pydantic import Field, ValidationError, model_validator

from retort.bootstrap.prompts import CutShort, Size, exchange, tokens_of, warmth
from retort.bootstrap.teacher import Teacher
from retort.errors import StartError
from retort.imports import Foreign, Unusable
from router import answer_text
from router.config_read import complaints
from router.policy_fields import Strict

USER_TEMPERATURE = 1.0
SAID_TOKENS = 30.0  # of a user's message, about
MOST_CALLS = 3  # rounds of tool calls before an answer
END = "[END]"

Turns = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
_CHANNEL = {
    "chat": "You type: write as people write in a chat.",
    "voice": "You are on the phone: speak as people speak, in plain spoken words, hesitations included.",
}
_USER = """You play a person who talks to an assistant; you are not the assistant. {channel}
What this person comes for: {category}{about}. Their tone: {tone}.
This is conversation {number} of {quota} about it: give the person a name, details and an occasion of their own, which \
none of the others has, and stay with them.
The user's message holds the conversation so far as JSON (`user` is the person you play). Reply with the person's next \
message alone, 1 to 3 sentences. When their matter is settled, or they give up, reply with {end} alone."""
_TOOL = """You stand in for the system behind a tool. The user's message is JSON: the tool's definition, the call, and \
the conversation. Reply with the JSON that the tool would return for this call, and nothing else; invent what it \
needs, in agreement with the conversation. Now and then a call finds nothing, or fails."""


class Category(Strict):
    """`quota`: how many conversations. Where one of the others is given, it takes the place of the file's own."""

    quota: int = Field(gt=0)
    about: str = ""
    turns: Turns | None = None
    tone: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] | None = None


class Scenarios(Strict):
    """A file. `system`: the route's own system prompt. `turns`: the fewest and the most messages of the user. `tone`:
    drawn for each conversation. `tools`: that the assistant is offered. `categories`: a number is a quota."""

    system: str | None = None
    channel: Literal["chat", "voice"] = "chat"
    turns: Turns = (1, 4)
    tone: tuple[str, ...] = ("neutral",)
    tools: tuple[dict[str, Any], ...] = ()
    categories: dict[str, Category] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _quotas(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("categories"), dict):
            given = data["categories"].items()
            return {**data, "categories": {n: {"quota": c} if isinstance(c, int) else c for n, c in given}}
        return data

    @model_validator(mode="after")
    def _ordered(self) -> "Scenarios":
        for turns in (self.turns, *(c.turns for c in self.categories.values() if c.turns)):
            if turns[0] > turns[1]:
                raise ValueError(f"turns: [{turns[0]}, {turns[1]}]: the fewest come first")
        return self


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """The `number`-th of a category, from 1."""

    category: str
    number: int
    quota: int
    about: str
    system: str | None
    channel: str
    turns: Turns
    tone: tuple[str, ...]
    tools: tuple[dict[str, Any], ...]

    @property
    def says(self) -> Any:
        """See Task. Without the quota: a larger one asks only for what is new."""
        return [msgspec.structs.replace(self, quota=0)]

    @property
    def offers_tools(self) -> bool:
        """See Task."""
        return bool(self.tools)

    def size(self, answer_tokens: float) -> Size:
        """See Task."""
        turns = sum(self.turns) / 2.0
        begin = tokens_of([self.system, self.tools])
        before = turns * (turns - 1.0) / 2.0 * (SAID_TOKENS + answer_tokens)
        answers = turns * (begin + SAID_TOKENS) + before
        return Size(turns, turns, answers + turns * len(_USER) / 4.0 + before)

    async def run(self, teacher: Teacher, temperature: float | None, session: str) -> list[Foreign]:
        """See Task."""
        draw = random.Random(session)  # noqa: S311 - no secret
        turns, tone = draw.randint(*self.turns), draw.choice(self.tone)
        parameters = {**warmth(temperature), **({"tools": list(self.tools)} if self.tools else {})}
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system else []
        found: list[Foreign] = []
        try:
            await self._talk(teacher, messages, found, parameters, turns=turns, tone=tone, session=session)
        except Unusable as error:
            if not found:
                raise
            raise CutShort(error, found) from error
        if not found:
            raise Unusable("no_user")
        return found

    async def _talk(
        self,
        teacher: Teacher,
        messages: list[dict[str, Any]],
        found: list[Foreign],
        parameters: dict[str, Any],
        *,
        turns: int,
        tone: str,
        session: str,
    ) -> None:
        for _ in range(turns):
            said = await self._user(teacher, messages, tone)
            if not said or END in said:
                return
            messages.append({"role": "user", "content": said})
            for _ in range(MOST_CALLS + 1):
                reply = await teacher(messages, **parameters)
                found.append(exchange(messages, parameters, reply, session, len(found)))
                messages.append({"role": "assistant", **reply.message})
                calls = reply.message.get("tool_calls") or []
                if not calls:
                    break
                messages += [await self._result(teacher, messages, call) for call in calls]
            else:
                return  # it calls and calls

    async def _user(self, teacher: Teacher, messages: list[dict[str, Any]], tone: str) -> str:
        task = _USER.format(
            channel=_CHANNEL[self.channel],
            category=self.category.replace("_", " "),
            about=f" ({self.about})" if self.about else "",
            tone=tone,
            number=self.number,
            quota=self.quota,
            end=END,
        )
        return await _played(teacher, task, _spoken(messages), temperature=USER_TEMPERATURE)

    async def _result(
        self, teacher: Teacher, messages: list[dict[str, Any]], call: Mapping[str, Any]
    ) -> dict[str, Any]:
        name = (call.get("function") or {}).get("name")
        tool = next((t for t in self.tools if (t.get("function") or {}).get("name") == name), None)
        said = await _played(teacher, _TOOL, {"tool": tool, "call": call, "conversation": _spoken(messages)})
        return {"role": "tool", "tool_call_id": call.get("id", ""), "content": said}


async def _played(teacher: Teacher, task: str, material: Any, **parameters: Any) -> str:
    """What the teacher says in somebody else's part."""
    question = [
        {"role": "system", "content": task},
        {"role": "user", "content": msgspec.json.encode(material).decode()},
    ]
    return answer_text((await teacher(question, **parameters)).message).strip()


def _spoken(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [m for m in messages if m["role"] != "system"]


def read_scenarios(file: str) -> Iterator[Conversation]:
    """The conversations of a file, the categories taking turns. Raises StartError."""
    try:
        said = yaml.safe_load(Path(file).read_text("utf-8"))
        if not isinstance(said, dict):
            raise StartError(
                f"{file}: it holds no scenarios, which are a mapping with the key categories; "
                "examples/bootstrap/voice.yaml is one to copy"
            )
        made = Scenarios.model_validate(said)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StartError(f"{file}: can't be read: {getattr(error, 'strerror', None) or error}") from error
    except ValidationError as error:
        file_has, category_has = (", ".join(kind.model_fields) for kind in (Scenarios, Category))
        unknown = f"unknown key; a file has {file_has}, a category {category_has}"
        raise StartError("\n".join(f"{file}: {line}" for line in complaints(error, unknown=unknown))) from error
    for number in range(1, max(c.quota for c in made.categories.values()) + 1):
        for name, category in made.categories.items():
            if number <= category.quota:
                yield Conversation(
                    category=name,
                    number=number,
                    quota=category.quota,
                    about=category.about,
                    system=made.system,
                    channel=made.channel,
                    turns=category.turns or made.turns,
                    tone=category.tone or made.tone,
                    tools=made.tools if category.tools is None else category.tools,
                )
