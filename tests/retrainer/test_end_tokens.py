"""A base whose turn ends with a token that isn't its tokenizer's end, as Gemma 2's and Phi's: answers end there too."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_model
import torch

from exporters.models import GenAIGenerator, merge, to_onnx
from gateway.engines.genai import GenAIRuntime
from retrainer.data.render import Row, prompt_ids
from retrainer.evaluation.generate import TorchGenerator
from retrainer.train.chat import Settings, train
from retrainer.train.models import open_student
from retrainer.train.on_policy import sample

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

PROMPT = tiny_model.messages(0)


@pytest.fixture(scope="module")
def said(tiny_base: Path, tokenizer: Any) -> list[int]:
    """What the base says to the prompt where nothing ends it: eight tokens, the third of which is new."""
    ids = torch.tensor([prompt_ids(tokenizer, PROMPT)])
    model = open_student(tiny_base).cpu()
    with torch.inference_mode():
        whole = model.generate(input_ids=ids, do_sample=False, max_new_tokens=8, min_new_tokens=8)
    tokens: list[int] = whole[0, ids.shape[1] :].tolist()
    assert tokens[2] not in tokens[:2]
    assert tokenizer.eos_token_id not in tokens
    return tokens


def turning(base: Path, folder: Path, ends: list[int], *, file: str = "generation_config.json") -> Path:
    """A copy of the base with these end tokens in one of its files."""
    shutil.copytree(base, folder)
    if file != "generation_config.json":
        (folder / "generation_config.json").unlink()
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**settings, "eos_token_id": ends}))
    return folder


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_a_bases_answer_ends_at_any_of_its_end_tokens_with_and_without_a_draft(
    file: str, tiny_base: Path, tokenizer: Any, said: list[int], tmp_path: Path
) -> None:
    base = turning(tiny_base, tmp_path / "base", [0, said[2]], file=file)
    generator = TorchGenerator(base)
    (found,) = generator.generate([PROMPT], max_new_tokens=8)
    assert (found.finish_reason, found.tokens) == ("stop", 3)
    assert found.text == tokenizer.decode(said[:2])
    for draft in (found.text, found.text + tokenizer.eos_token, "wrong"):
        (drafted,) = generator.generate([PROMPT], max_new_tokens=8, drafts=[draft])
        assert msgspec.structs.replace(drafted, logprobs=found.logprobs, drafted=False) == found
    prompt = prompt_ids(tokenizer, PROMPT)
    guesses = [Row(prompt, [*tokens, tokenizer.eos_token_id]) for tokens in (said[:2], said[:1], said[:3])]
    right, *wrong = generator._check(guesses)
    assert right is not None
    assert right.logprobs == pytest.approx(found.logprobs, abs=1e-4)
    assert msgspec.structs.replace(right, logprobs=found.logprobs, drafted=False) == found
    assert wrong == [None, None]
    (rambling,) = TorchGenerator(tiny_base).generate([PROMPT], max_new_tokens=8)
    assert rambling.finish_reason == "length"


def test_a_students_own_samples_end_there_too(tiny_base: Path, tokenizer: Any, said: list[int], tmp_path: Path) -> None:
    student = open_student(turning(tiny_base, tmp_path / "base", [2, *range(256)]))  # half of the vocabulary
    torch.manual_seed(0)
    drawn = sample(student, [Row(prompt_ids(tokenizer, PROMPT), [2])] * 8, most=12, tokenizer=tokenizer)
    for row in drawn:
        assert all(token >= 256 for token in row.completion[:-1])
        assert row.completion[-1] < 256


def test_a_bases_own_settings_of_generation_bend_no_sample(tiny_base: Path, tokenizer: Any) -> None:
    """min_p 1 leaves the likeliest token alone, of which at T = 1 an untrained model seldom draws two in a row."""
    student = open_student(tiny_base)
    student.generation_config.min_p = 1.0
    rows = [Row(prompt_ids(tokenizer, PROMPT), [2])] * 8
    torch.manual_seed(0)
    drawn = {tuple(row.completion) for row in sample(student, rows, most=12, tokenizer=tokenizer)}
    assert len(drawn) == 8
    assert student.generation_config.min_p == 1.0
    assert student.training


def test_what_is_served_keeps_them(
    tiny_base: Path, tokenizer: Any, rows: list[Row], said: list[int], tmp_path: Path
) -> None:
    base = turning(tiny_base, tmp_path / "base", [2, said[2]])
    train(base, rows[:32], tmp_path, Settings(learning_rate=5e-3), tokenizer=tokenizer)
    merge(base, tmp_path / "adapter", tmp_path / "merged", probe=rows[0].prompt)
    artefact = tmp_path / "artefact"
    artefact.mkdir()
    to_onnx(tmp_path / "merged", artefact, quantization="int8", log=tmp_path / "export.log")
    assert GenAIRuntime(artefact, threads=1).ends == {2, said[2]}
    assert GenAIGenerator(artefact, threads=1)._stops == {2, said[2]}
