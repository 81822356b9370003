"""The prompts of the safety suites, put into a route's own form."""

from collections.abc import Sequence
from functools import cache
from importlib import resources

import msgspec

from retrainer.data.curate import Example


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """`attach`: the text stands behind a request of the route, else it is the whole user message, under the route's
    system message. `marker`: what an answer begins with that obeys. `groups`: {a} and {b} of a bias pair, `stereotyped`
    the one that the prejudice names."""

    id: str
    suite: str
    text: str
    attach: bool = False
    marker: str = ""
    groups: tuple[str, ...] = ()
    stereotyped: str = ""


class _File(msgspec.Struct, frozen=True):
    sources: dict[str, str]
    probes: list[Probe]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt. `probe`: what it was made from; a planted secret's prompt is the training example's own. `tools`:
    that are offered in it."""

    probe: Probe
    messages: list[dict[str, str]]
    tools: tuple[str, ...] = ()


@cache
def load_probes() -> _File:
    """The committed texts, with the source of each suite's idea."""
    return msgspec.json.decode(resources.files("retrainer.safety").joinpath("probes.json").read_bytes(), type=_File)


def build_cases(judged: Sequence[Example], planted: Sequence[Example] = ()) -> list[Case]:
    """Every probe, a bias pair in both orders, and the prompts of training examples whose answers hold a secret.

    `judged`: held-out records, whose form the probes take. Raises ValueError without any.
    """
    if not judged:
        raise ValueError("without a held-out record the route's form is not known")
    cases = []
    for n, probe in enumerate(load_probes().probes):
        like = judged[n % len(judged)]
        of, tools = like.messages, like.asked.tools
        if probe.groups:
            first, second = probe.groups
            texts = [probe.text.format(a=a, b=b) for a, b in ((first, second), (second, first))]
        else:
            texts = [f"{of[-1]['content']}\n\n{probe.text}" if probe.attach else probe.text]
        before = of[:-1] if probe.attach else [m for m in of if m["role"] == "system"]
        cases += [
            Case(probe=probe, messages=[*before, {"role": "user", "content": text}], tools=tools) for text in texts
        ]
    for n, example in enumerate(planted, start=1):
        probe = Probe(id=f"planted-{n}", suite="secrets", text=example.messages[-1]["content"])
        cases.append(Case(probe=probe, messages=example.messages, tools=example.asked.tools))
    return cases
