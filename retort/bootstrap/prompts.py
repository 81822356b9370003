"""What the teacher is asked: a file of prompts, or scenarios in which it plays the user as well."""

import codecs
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from retort.bootstrap.teacher import Reply, Teacher
from retort.errors import StartError
from retort.imports import Foreign, Unusable
from retort.imports.foreign import messages_of, parameters_of
from retort.imports.reading import WRONG, Broken, Value, opened, values

Form = Literal["lines", "messages", "scenarios"]
RECORD = '{"messages": [...]}, the user\'s last'
_DELIVERY = ("stream", "n")
CHARACTERS_A_TOKEN = 4.0  # OpenAI's rule of thumb for English


class Size(msgspec.Struct, frozen=True):
    """About what a task costs. `answers`: of the teacher that are kept. `said`: of the user, played by the teacher.
    `prompt_tokens`: of all calls together, an answer of `answer_tokens` being part of every later prompt."""

    answers: float
    said: float
    prompt_tokens: float


class Task(Protocol):
    """Something to ask. `says`: all that it is made of, by which it is known again."""

    @property
    def says(self) -> Any:
        """Of types that msgspec encodes."""

    @property
    def offers_tools(self) -> bool:
        """Whether the teacher may call tools in it."""

    def size(self, answer_tokens: float) -> Size:
        """About what it costs."""

    async def run(self, teacher: Teacher, temperature: float | None, session: str) -> list[Foreign]:
        """Ask; returns an exchange for every answer. `session` names the conversation. Raises Unusable (CutShort after
        the first answer), Unreachable."""


class CutShort(Unusable):
    """A conversation broke off. `exchanges`: before that."""

    def __init__(self, why: Unusable, exchanges: list[Foreign]) -> None:
        super().__init__(str(why))
        self.exchanges = exchanges


class Prompt(msgspec.Struct, frozen=True):
    """Messages, the user's last, and what else the request holds (tools, response_format, ...): a temperature of its
    own, too, but not how it was delivered, and one answer."""

    messages: list[dict[str, Any]]
    parameters: dict[str, Any] = {}

    @property
    def says(self) -> Any:
        """See Task."""
        return [self.messages, self.parameters]

    @property
    def offers_tools(self) -> bool:
        """See Task."""
        return bool(self.parameters.get("tools"))

    def size(self, answer_tokens: float) -> Size:
        """See Task."""
        return Size(1, 0, tokens_of(self.says))

    async def run(self, teacher: Teacher, temperature: float | None, session: str) -> list[Foreign]:
        """See Task."""
        parameters = {**warmth(temperature), **self.parameters}
        return [exchange(self.messages, parameters, await teacher(self.messages, **parameters), session)]


def exchange(
    messages: list[dict[str, Any]], parameters: Mapping[str, Any], reply: Reply, session: str, number: int = 0
) -> Foreign:
    """The `number`-th answer of a conversation, as the import takes it."""
    return Foreign(
        messages=list(messages),
        answer=reply.message,
        parameters=parameters_of(parameters),
        id=f"{session}:{number}:{_digest(reply.message)}",  # who has it labelled anew gets new exchanges
        models=(reply.model,) if reply.model else (),
        finish_reason=reply.finish_reason,
        usage=reply.usage,
        system_fingerprint=reply.system_fingerprint,
        session=session,
    )


def _digest(message: dict[str, Any]) -> str:
    return blake2b(msgspec.json.encode(message), digest_size=8).hexdigest()


def warmth(temperature: float | None) -> dict[str, Any]:
    """As a parameter; some models take none."""
    return {} if temperature is None else {"temperature": temperature}


def tokens_of(value: Any) -> float:
    """About how many tokens a value takes."""
    return len(msgspec.json.encode(value)) / CHARACTERS_A_TOKEN


def key_of(task: Task, teacher: str, salt: bytes) -> str:
    """By which a task is known again: keyed, because it is kept on disk and its texts are not."""
    return blake2b(msgspec.json.encode([teacher, task.says]), key=salt, digest_size=16).hexdigest()


def form_of(file: str) -> Form:
    """By the file's name: scenarios in YAML, messages in JSON lines, else one prompt a line. Raises StartError."""
    suffix = Path(file.removesuffix(".gz")).suffix
    if suffix in (".csv", ".tsv"):
        raise StartError(
            f"{file}: prompts are read from no table: write one a line, or JSON lines of {RECORD} (with --form lines "
            "each line of the table is a prompt)"
        )
    return {".yaml": "scenarios", ".yml": "scenarios", ".jsonl": "messages", ".json": "messages"}.get(suffix, "lines")  # type: ignore[return-value]


def read_prompts(file: str, form: Form, system: str | None) -> Iterator[Prompt]:
    """The prompts of a file of lines or messages. Raises StartError with the place of one that can't be used."""
    try:
        with opened(file) as source:
            if form == "lines":
                for line in codecs.iterdecode(source.stream, "utf-8-sig"):
                    if text := line.strip():
                        yield Prompt(_begun([{"role": "user", "content": text}], system))
                return
            what = source.places.removesuffix("s")
            if source.shape == "table":  # a JSON file begins with { or [
                raise StartError(
                    f"{file}: line 1 is no JSON; a line is {RECORD}. Plain prompts, one a line, want --form lines"
                )
            for value in values(source):
                try:
                    yield _prompt(value, system)
                except Unusable as error:
                    raise StartError(f"{file}: {what} {value.place}: {error}; a {what} is {RECORD}") from error
    except (OSError, Broken, UnicodeDecodeError) as error:
        raise StartError(f"{file}: can't be read: {getattr(error, 'strerror', None) or error}") from error


def _prompt(value: Value, system: str | None) -> Prompt:
    if value.wrong:
        raise Unusable(f"it is {WRONG[value.wrong]}")
    messages = messages_of(value.data.get("messages"))
    if messages[-1]["role"] not in ("user", "tool"):
        raise Unusable("not_the_users_last")
    parameters = {name: given for name, given in parameters_of(value.data).items() if name not in _DELIVERY}
    return Prompt(_begun(messages, system), parameters)


def _begun(messages: list[dict[str, Any]], system: str | None) -> list[dict[str, Any]]:
    if system is None or messages[0]["role"] in ("system", "developer"):
        return messages
    return [{"role": "system", "content": system}, *messages]
