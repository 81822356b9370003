"""What an average hides: the newest traffic, where drift shows first, and the frozen regression suite, where a student
that has forgotten shows against the one before it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from exporters.models import Generated, Messages
from retrainer.data.curate import Example
from retrainer.evaluation.clusters import Regressions
from retrainer.evaluation.evaluate import Generate, Report
from retrainer.evaluation.metrics import Metric, bootstrap


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """On the regression suite: `scores`, each one's agreement by its report's name; `regressions`, what was lost there
    against the live version, None without one."""

    scores: dict[str, Metric]
    regressions: Regressions | None = None


def agreements(
    reports: Mapping[str, Report], examples: Sequence[Example], ids: Collection[str] | None = None
) -> dict[str, Metric]:
    """By report, the mean score on those of `examples` that it has a score of, with a bootstrap interval by
    conversation group; reports without any are left out. `ids`: of the records that count, None for all."""
    known = {e.id: e for e in examples if ids is None or e.id in ids}
    found = {}
    for name, report in reports.items():
        values = {o.id: o.value for o in report.outcomes if o.value is not None and o.id in known}
        if values:
            groups, weights = [known[i].group or i for i in values], [known[i].weight for i in values]
            found[name] = bootstrap(list(values.values()), groups, weights)
    return found


def remembering(generate: Generate, examples: Sequence[Example], report: Report) -> Generate:
    """As `generate`, whose answers to `examples` the report holds: those are not generated again."""
    known = {
        msgspec.json.encode(e.messages): Generated(
            text=o.text, finish_reason=o.finish_reason, tokens=0, reasoning=o.reasoning
        )
        for e, o in zip(examples, report.outcomes, strict=True)
    }

    def answer(prompts: Sequence[Messages], *, drafts: Sequence[str] | None = None, **how: Any) -> list[Generated]:
        keys = [msgspec.json.encode(p) for p in prompts]
        new = [i for i, key in enumerate(keys) if key not in known]
        if new:
            guesses = None if drafts is None else [drafts[i] for i in new]
            said = generate([prompts[i] for i in new], drafts=guesses, **how)
            known.update({keys[i]: answered for i, answered in zip(new, said, strict=True)})
        return [known[key] for key in keys]

    return answer
