"""The arguments of `retort recipe`."""

import argparse

from retort.extras import need
from retort.settings import load

TEXT = "try a configuration's recipes dry: settings, chat template, memory, time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration, and what is to be trained on."""
    add = parser.add_argument
    add("file")
    add("--route", help="this one alone")
    add("--examples", type=int, default=5000, metavar="N", help="to train on (default: %(default)s)")
    add("--prompt-tokens", type=int, default=250, metavar="N", help="of a usual example (default: %(default)s)")
    add("--answer-tokens", type=int, default=50, metavar="N", help="of a usual example (default: %(default)s)")
    add("--json", action="store_true")


def run(options: argparse.Namespace) -> int:
    """Returns 0, or 1 where a training doesn't fit this machine. Raises StartError."""
    need("recipe", "retrainer")
    from retort.recipe import recipe  # noqa: PLC0415 - heavy
    from retrainer.recipes.estimate import Load  # noqa: PLC0415

    given = Load(examples=options.examples, prompt=options.prompt_tokens, completion=options.answer_tokens)
    return recipe(load(options.file, unset=True), options.file, given, route=options.route, as_json=options.json)
