"""What a recipe makes of examples that offer tools."""

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from retrainer_fakes import training_folder, training_job

from retrainer.errors import BaseModelError
from retrainer.recipes import Job
from router.scores import Asked

CALL = '<tool_call>\n{"name": "paint", "arguments": {}}\n</tool_call>'


def job(folder: Path, base: Path, *, offering: int) -> Job:
    """Of the tiny task, some of whose examples offer a tool."""
    made = training_job(training_folder(folder, base))
    train = list(made.data.train)
    changed = [msgspec.structs.replace(e, asked=Asked(tools=("paint",)), answer=CALL) for e in train[:offering]]
    made.data = msgspec.structs.replace(made.data, train=[*changed, *train[offering:]])
    return made


def test_answers_are_not_few_where_a_tool_may_be_called(tmp_path: Path, tiny_base: Path) -> None:
    assert job(tmp_path / "a", tiny_base, offering=0).closed.form is not None
    found = job(tmp_path / "b", tiny_base, offering=1)
    assert found.closed.form is None
    assert found.closed.reason == "1 of 96 requests offer tools, which only a student that writes can call"
    assert found.calls_tools
    assert found.closed.summary()["closed"] is False


def test_a_tokenizer_that_hides_the_tags_is_refused(tmp_path: Path, tiny_base: Path, tokenizer: Any) -> None:
    made = job(tmp_path / "a", tiny_base, offering=1)
    assert len(made.rows) == 96
    hiding = copy.deepcopy(tokenizer)
    hiding.add_special_tokens({"additional_special_tokens": ["<tool_call>", "</tool_call>"]})
    made = job(tmp_path / "b", tiny_base, offering=1)
    made.tokenizer = hiding
    with pytest.raises(BaseModelError, match="takes <tool_call> for a special token"):
        _ = made.rows
    made = job(tmp_path / "c", tiny_base, offering=0)
    made.tokenizer = hiding
    assert len(made.rows) == 96, "without tools it doesn't matter"
