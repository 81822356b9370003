"""What a trained tiny model has learnt."""

from pathlib import Path

import tiny_model

from retrainer.evaluation.generate import TorchGenerator

UNSEEN = range(5000, 5100)  # questions that no training shows


def right_of_100(folder: Path) -> int:
    """How many of 100 unseen questions the model in `folder` answers rightly."""
    answers = TorchGenerator(folder).generate([tiny_model.messages(n) for n in UNSEEN], max_new_tokens=10)
    return sum(a.text == tiny_model.answer(tiny_model.question(n)) for n, a in zip(UNSEEN, answers, strict=True))
