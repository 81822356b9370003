"""An interaction in the forms that others read: a row for JSON lines and Parquet, a line for OpenAI's fine-tuning."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from collector import Answer, Interaction
from retort.errors import StartError
from router import Arm

ROWS = 2000  # of a Parquet row group


Message = Mapping[str, Any]


class Writer(Protocol):
    """Takes interactions, into an open file."""

    def write(self, records: Sequence[Interaction], right: Mapping[str, Message]) -> int:
        """How many of these were written; the others have nothing that the form could hold. `right`: the right answers
        to them that clients reported, by their ids."""

    def close(self) -> None:
        """Complete the file."""


class Lines:
    """One JSON object a line; `of` makes it, None for a record that the form can't hold."""

    def __init__(self, out: BinaryIO, of: Callable[[Interaction, Message | None], Any]) -> None:
        self._out, self._of = out, of

    def write(self, records: Sequence[Interaction], right: Mapping[str, Message]) -> int:
        """See Writer."""
        made = [line for record in records if (line := self._of(record, right.get(record.id))) is not None]
        self._out.writelines(msgspec.json.encode(line) + b"\n" for line in made)
        return len(made)

    def close(self) -> None:
        """Nothing is held back."""


class Parquet:
    """One row a record, texts as JSON; zstd."""

    def __init__(self, out: BinaryIO) -> None:
        try:
            import pyarrow  # noqa: PLC0415 - heavy, and not everybody has it
            import pyarrow.parquet  # noqa: PLC0415
        except ImportError as error:
            raise StartError("--format parquet needs pyarrow; pip install 'retort-gateway[export]'") from error
        text, number, whole = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
        types = {"at": pyarrow.timestamp("us", tz="UTC"), "eligible": pyarrow.bool_(), "stream": pyarrow.bool_()}
        types |= dict.fromkeys(("propensity", "cost_usd", "ttft_ms", "total_ms"), number)
        types |= dict.fromkeys(("rollout_revision", "status", "prompt_tokens", "completion_tokens"), whole)
        self._arrow = pyarrow
        self._schema = pyarrow.schema([(name, types.get(name, text)) for name in COLUMNS])
        self._writer = pyarrow.parquet.ParquetWriter(out, self._schema, compression="zstd")

    def write(self, records: Sequence[Interaction], right: Mapping[str, Message]) -> int:
        """See Writer."""
        for start in range(0, len(records), ROWS):
            rows = [row(record, right.get(record.id)) for record in records[start : start + ROWS]]
            for one in rows:
                one["at"] = round(one["at"] * 1e6)
                one |= {name: _json(one[name]) for name in ("request", "message", "shadows")}
                one["right_answer"] = None if one["right_answer"] is None else _json(one["right_answer"])
            self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))
        return len(records)

    def close(self) -> None:
        """See Writer."""
        self._writer.close()


COLUMNS = (
    "id", "at", "route", "kind", "arm", "version", "propensity", "eligible", "policy_version", "rollout_revision",
    "consent", "scrubber", "cluster", "subject", "stream", "request", "served_by", "model", "status", "error",
    "finish_reason", "message", "reasoning", "prompt_tokens", "completion_tokens", "cost_usd", "ttft_ms", "total_ms",
    "shadows", "right_answer",
)  # fmt: skip


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def row(record: Interaction, right: Message | None = None) -> dict[str, Any]:
    """The record and its served answer in one level; `at` in Unix seconds. `arm`: as decided, `served_by`: the version
    or the upstream that answered. `shadows`: the answers that were asked for besides. `right_answer`: the newest that a
    client reported."""
    served, *shadows = record.answers
    fields = {**msgspec.to_builtins(record), **_answer(served)}
    more = {"shadows": [_answer(one) for one in shadows], "right_answer": right}
    return {name: fields.get(name) for name in COLUMNS} | more


def _answer(answer: Answer) -> dict[str, Any]:
    fields = dict(msgspec.to_builtins(answer))
    used = fields.pop("usage") or {}
    name = fields.pop("version") or fields.pop("upstream", None)
    kept = {k: v for k, v in fields.items() if k not in ("arm", "upstream", "logprobs")}
    return {**kept, "served_by": name, **{k: used.get(k) for k in ("prompt_tokens", "completion_tokens")}}


def fine_tuning(record: Interaction, right: Message | None = None) -> dict[str, Any] | None:
    """A line of OpenAI's fine-tuning format: the conversation, with the right answer at its end where a client reported
    one, else the teacher's whole answer."""
    messages = record.request.get("messages")
    message = _teachers(record) if right is None else right
    if not message or not isinstance(messages, list):
        return None
    said = {k: v for k, v in message.items() if k in ("role", "content", "tool_calls", "refusal") and v}
    extra: dict[str, Any] = {k: record.request[k] for k in ("tools", "parallel_tool_calls") if k in record.request}
    return {"messages": [*messages, {"role": "assistant", **said}], **extra}


def _teachers(record: Interaction) -> Message | None:
    """What the teacher said, whole."""
    answer = next((a for a in record.answers if a.arm is Arm.TEACHER), None)
    if answer is None or answer.status != 200 or answer.error is not None:
        return None
    return answer.message if answer.finish_reason in ("stop", "tool_calls") else None


def writer(form: str, out: BinaryIO) -> Writer:
    """For jsonl, openai or parquet."""
    if form == "parquet":
        return Parquet(out)
    return Lines(out, fine_tuning if form == "openai" else row)


def next_part(folder: Path, form: str) -> Path:
    """A name in a folder that nothing has yet: 000001.jsonl, 000002.jsonl, ..."""
    numbers = [int(path.stem) for path in folder.iterdir() if path.stem.isdigit()]
    return folder / f"{max(numbers, default=0) + 1:06d}.{'parquet' if form == 'parquet' else 'jsonl'}"
