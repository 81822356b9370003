"""Training takes logits only where an answer is predicted: the model's own, whatever it does behind its head."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_pruned_architectures import built
from transformers import Cohere2Config, CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig, SmolLM3Config

from retrainer.data.render import Row
from retrainer.errors import BaseModelError
from retrainer.train import chat
from retrainer.train.batches import IGNORED, collate, completion_logits, own_logits

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

ROWS = [Row([5, 6, 7, 8], [9, 10, 2]), Row([5, 6, 30], [31, 2])]


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        (LlamaConfig, {}),
        (SmolLM3Config, {}),
        (GraniteConfig, {"logits_scaling": 8.0}),
        (CohereConfig, {"logit_scale": 0.25}),
        (Cohere2Config, {"logit_scale": 0.25}),
        (Gemma2Config, {"final_logit_softcapping": 0.5}),
    ],
)
def test_logits_are_those_of_the_model_itself(architecture: Any, changes: dict[str, Any]) -> None:
    model = built(architecture, **changes)
    batch = collate(ROWS, pad=2, device=torch.device("cpu"), width=1)
    with torch.no_grad():
        whole = model(input_ids=batch.ids, position_ids=batch.positions).logits[batch.labels != IGNORED]
        torch.testing.assert_close(completion_logits(model, batch), whole, rtol=1e-4, atol=1e-5)
    assert own_logits(model)


def test_a_model_that_scales_them_in_a_way_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(LlamaConfig)

    def doubled(module: Any, given: Any, output: Any) -> Any:
        output.logits = 2 * output.logits
        return output

    model.register_forward_hook(doubled)
    monkeypatch.setattr(chat, "_load", lambda base, settings: model)
    with pytest.raises(BaseModelError, match="base: LlamaForCausalLM makes its logits in a way of its own"):
        chat.opened(Path("base"), chat.Settings(method="full"))
