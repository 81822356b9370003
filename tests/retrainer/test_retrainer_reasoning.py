"""A student that learns to think before it answers: its rows, its training, what is scored and what is served."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_model
from retrainer_fakes import example, training_folder, training_job

from exporters.models import GenAIGenerator
from gateway.engines.child import Child
from gateway.engines.protocol import Done, Options, Piece
from retrainer.data.curate import Side
from retrainer.data.dataset import Dataset, digest, load, write
from retrainer.data.render import render
from retrainer.errors import BaseModelError
from retrainer.evaluation.evaluate import evaluate
from retrainer.recipes import RECIPES
from retrainer.scoring import scorer

MESSAGES = tiny_model.messages(1)
KNOWS = tiny_model.TEMPLATE.replace(  # as Qwen3's: of the last answer, and on lines of its own
    "message['content'] + '<|im_end|>",
    "('<think>\n' + message.reasoning_content + '\n</think>\n' if message.reasoning_content else '')"
    " + message['content'] + '<|im_end|>",
)
OPENS = tiny_model.TEMPLATE.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")


@pytest.mark.parametrize(
    ("template", "reasoning", "completion"),
    [
        (tiny_model.TEMPLATE, "", "red<|im_end|>"),
        (tiny_model.TEMPLATE, "hm", "<think>\nhm\n</think>\n\nred<|im_end|>"),
        (KNOWS, "", "red<|im_end|>"),
        (KNOWS, "hm", "<think>\nhm\n</think>\nred<|im_end|>"),
        (OPENS, "hm", "hm\n</think>\n\nred<|im_end|>"),
        (OPENS, "", "\n</think>\n\nred<|im_end|>"),
    ],
)
def test_a_row_has_thinking_in_the_form_of_the_bases_template(
    tokenizer: Any, template: str, reasoning: str, completion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    row = render(tokenizer, MESSAGES, "red", reasoning=reasoning)
    assert tokenizer.decode(row.completion) == completion
    assert tokenizer.decode(row.prompt) == tokenizer.apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=True
    )


def test_a_base_whose_tokenizer_hides_the_marks_learns_no_thinking(tiny_base: Path, tmp_path: Path) -> None:
    job = training_job(training_folder(tmp_path / "cycle", tiny_base))
    job.tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    assert job.row(example(1)).completion
    with pytest.raises(BaseModelError, match="hides <think> as a special token"):
        job.row(msgspec.structs.replace(example(1), reasoning="hm"))


@pytest.mark.train
@pytest.mark.e2e
@pytest.mark.usefixtures("one_thread")
async def test_a_student_learns_to_think_is_scored_by_its_answers_and_served_with_its_thinking_apart(
    tiny_base: Path, tmp_path: Path
) -> None:
    folder = training_folder(tmp_path / "cycle", tiny_base, epochs=3)
    made = [msgspec.structs.replace(e, reasoning=f"It is {e.answer}") for e in map(example, range(360))]
    parts = {Side.TRAIN: made[:320], Side.VALIDATION: made[320:336], Side.TEST: made[336:]}
    manifest = msgspec.structs.replace(load(folder / "dataset").manifest, digest=digest(parts))
    learnt = Dataset(**{side.value: some for side, some in parts.items()}, manifest=manifest)
    write(learnt, folder / "dataset")
    job = training_job(folder)
    recipe = RECIPES["lora"](job)
    recipe.train()
    judged = job.data.held_out
    most = recipe.most_tokens([e.said for e in judged])
    assert most > recipe.most_tokens([e.answer for e in judged])
    artefact = folder / "artefact"
    artefact.mkdir()
    recipe.export(artefact)
    drafts = [e.said for e in judged]
    for generator in (recipe.trained(), GenAIGenerator(artefact, threads=1)):
        report = evaluate(generator.generate, judged, scorer("json_fields", "."), max_new_tokens=most, drafts=drafts)
        assert report.agreement > 0.8
        assert all(o.reasoning == f"It is {o.text}" for o in report.outcomes if o.value == 1.0)

    child = await Child.start(artefact, threads=1, timeout=60)
    try:
        options = Options(max_tokens=most, temperature=0.0)
        for number, outcome in enumerate(report.outcomes[:3]):
            events = [event async for event in child.generate(judged[number].messages, options)]
            pieces, done = [e for e in events if isinstance(e, Piece)], events[-1]
            assert isinstance(done, Done)
            assert "".join(p.text for p in pieces) == outcome.text
            assert "".join(p.reasoning for p in pieces) == outcome.reasoning
            assert 0 < done.reasoning_tokens < done.completion_tokens
    finally:
        await child.close()
