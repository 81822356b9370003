"""`retort check FILE`: what can be said of a configuration without starting anything, or loading a model."""

from collections.abc import Iterator
from pathlib import Path

from retort.errors import StartError
from retort.extras import need
from router import Config, RoutePolicy
from router.policy_student import CLOSED


def check(config: Config, file: str) -> int:
    """Say that it is good, and what could not be looked at; returns 0. Raises StartError with a line for each model
    that there isn't."""
    notes = [*_bases(config, file), *_engines(config, file)]
    print(f"{file}: good; {len(config.routes)} route(s): {', '.join(sorted(config.routes))}")
    for note in notes:
        print(f"  not checked: {note}")
    return 0


def _bases(config: Config, file: str) -> list[str]:
    named = {key: base for route, policy in config.routes.items() for key, base in _named(route, policy)}
    if not named:
        return []
    try:
        need("check", "retrainer")
    except StartError:
        return ["the students' base models; the retrainer is not installed here"]
    from retrainer.base_models import not_here  # noqa: PLC0415
    from retrainer.errors import BaseModelError  # noqa: PLC0415

    notes, wrong = [], []
    for key, base in named.items():
        try:
            note = not_here(base, config.state)
        except BaseModelError as error:
            wrong.append(f"{file}: {key}: {error}")
        else:
            notes += [f"{key}: {note}"] if note else []
    if wrong:
        raise StartError("\n".join(wrong))
    return notes


def _engines(config: Config, file: str) -> Iterator[str]:
    """Of the engines that launch vLLM: its environment may be made later, or on another machine; a base that is a
    folder must be one."""
    for name, engine in config.engines.items():
        key, base = f"engines.{name}.vllm", engine.vllm.adapters_on
        if engine.runtime != "vllm" or engine.vllm.urls:
            continue
        if base is not None and not Path(base, "config.json").is_file():
            raise StartError(
                f"{file}: {key}.adapters_on: {base} is no Hugging Face model folder: it has no config.json"
            )
        if not Path(engine.vllm.python).is_file():
            yield f"{key}.python: {engine.vllm.python} is not on this machine; scripts/install_vllm makes it"


def _named(route: str, policy: RoutePolicy) -> Iterator[tuple[str, str]]:
    """The models that a route's cycles load, by their keys."""
    if policy.student is None:
        return
    student, distil = f"routes.{route}.student", f"routes.{route}.retrain.distil"
    if policy.student.recipe not in CLOSED:
        yield f"{student}.base", policy.student.base
    if policy.student.recipe == "auto":
        yield from ((f"{student}.ladder[{n}]", rung.base) for n, rung in enumerate(policy.student.ladder))
    given = policy.retrain.distil
    if given.teacher is not None:
        yield f"{distil}.teacher", given.teacher
    for key in ("teachers", "assistants"):
        yield from ((f"{distil}.{key}[{n}]", base) for n, base in enumerate(getattr(given, key)))
