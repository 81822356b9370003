"""`retort bootstrap ROUTE FILE`: teacher labels for a route that has no log yet.

The teacher is asked through the gateway, on a route that captures nothing and serves no student; its answers then go to
the collector as an import does, and so through the scrubber, as evidence of nothing. What is written besides are the
keyed digests of what has been asked.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from collector import CollectorError, CollectorUnavailable
from collector.judge import gateway_url
from retort.bootstrap.estimate import Estimate, estimate, usd
from retort.bootstrap.labelling import Done, Labelling, Told
from retort.bootstrap.prompts import RECORD, Form, Task, form_of, key_of, read_prompts
from retort.bootstrap.scenarios import read_scenarios
from retort.bootstrap.teacher import Teacher, Unreachable
from retort.errors import StartError
from retort.import_log import ImportOptions, target_of
from retort.imports.exchange import Target
from router import Config


class BootstrapOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says. `ask`: the route that is asked; None: found. `system`: put before prompts that have no
    system message. `answer_tokens`: of an answer, for the estimate; None: as in the log. `yes`: don't ask first."""

    form: Form | None = None
    ask: str | None = None
    gateway: str | None = None
    system: str | None = None
    teacher: str | None = None
    temperature: float | None = 0.3
    concurrency: int = 8
    answer_tokens: float | None = None
    consented: bool = False
    yes: bool = False


def bootstrap(config: Config, route: str, file: str, options: BootstrapOptions, *, as_json: bool = False) -> int:
    """Returns 0, or 1 where something could not be labelled, or the user said no. Raises StartError."""
    target = target_of(config, route, ImportOptions(teacher=options.teacher, consented=options.consented))
    target = msgspec.structs.replace(target, format="bootstrap")
    ask = options.ask or _ask(config, target)
    _check(config, target, ask)
    asked = tasks(file, options)
    with closing(Done(Path(config.state) / "bootstrap" / f"{route.encode().hex()}.done")) as done:
        told = _labelled(config, target, ask, asked, done, options)
    if told is None:
        return 1
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(told)).decode())
    else:
        print("\n".join(told.lines()))
    return int(bool(told.left_out))


def _labelled(
    config: Config, target: Target, ask: str, asked: Sequence[Task], done: Done, options: BootstrapOptions
) -> Told | None:
    """What came of it; None where the user said no. Raises StartError."""
    keys = [key_of(task, target.teacher, target.salt) for task in asked]
    new = {key: task for key, task in zip(keys, asked, strict=True) if key not in done}
    told = Told(route=target.route, teacher=target.teacher, tasks=len(set(keys)), before=len(set(keys)) - len(new))
    if new:
        found = estimate(config, target, list(new.values()), options.answer_tokens)
        if not _agreed(found, told, yes=options.yes):
            return None
        url = options.gateway or _gateway(config)
        try:
            asyncio.run(_run(config, target, new, done, told, url=url, ask=ask, options=options))
        except KeyboardInterrupt:
            print("interrupted: what was labelled is kept; repeat the command to go on", file=sys.stderr)
            raise
    return told


async def _run(
    config: Config,
    target: Target,
    new: dict[str, Task],
    done: Done,
    told: Told,
    *,
    url: str,
    ask: str,
    options: BootstrapOptions,
) -> None:
    teacher = Teacher(url.rstrip("/"), ask)
    began = time.monotonic()
    labelling = Labelling(teacher, target, done, told, temperature=options.temperature, most=options.concurrency)
    try:
        await labelling.run(config.state, new)
    except Unreachable as error:
        raise StartError(f"{error}. Start Retort first (retort up), then repeat the command.") from error
    except CollectorUnavailable as error:
        raise StartError(f"{error} Start Retort first (retort up), then repeat the command.") from error
    finally:
        await teacher.close()
        told.seconds = time.monotonic() - began
        told.calls, told.used = teacher.calls, teacher.used
        told.usd = usd(config, target.teacher, teacher.used.prompt_tokens, teacher.used.completion_tokens)


def tasks(file: str, options: BootstrapOptions) -> Sequence[Task]:
    """What a file has asked. Raises StartError."""
    form = options.form or form_of(file)
    if form == "scenarios" and options.system is not None:
        raise StartError("--system is of prompts; scenarios have a key system")
    found: list[Task] = [*(read_scenarios(file) if form == "scenarios" else read_prompts(file, form, options.system))]
    if not found:
        raise StartError(f"{file}: it holds no prompt; write one a line, or JSON lines of {RECORD}")
    return found


def _ask(config: Config, target: Target) -> str:
    """The route on which this teacher, and nobody else, is asked and nothing is captured. Raises StartError."""
    for name, policy in config.routes.items():
        if policy.teachers == (target.teacher,) and policy.student is None and policy.capture.rate == 0.0:
            return name
    masks = ", mask_teachers: true" if target.policy.capture.mask_teachers else ""
    raise StartError(
        f"there is no route on which {target.teacher!r} can be asked without capture; add one under routes:, and "
        f"restart:\n  {target.route}-labels: {{teachers: [{target.teacher}], capture: {{rate: 0{masks}}}}}"
    )


def _check(config: Config, target: Target, ask: str) -> None:
    policy = config.routes.get(ask)
    if policy is None:
        raise StartError(f"--ask {ask!r}: no such route; the configuration has: {', '.join(sorted(config.routes))}")
    if policy.student is not None or policy.capture.rate > 0.0 or policy.teachers != (target.teacher,):
        raise StartError(
            f"--ask {ask!r} must be a route without a student, with capture: {{rate: 0}} and teachers: "
            f"[{target.teacher}], or others' answers would be taken for its own, or be kept twice"
        )
    if target.policy.capture.mask_teachers and not policy.capture.mask_teachers:
        raise StartError(
            f"routes.{ask}.capture.mask_teachers must be true as well, or the teacher would be sent what "
            f"{target.route!r} masks"
        )
    upstream = target.teacher.partition("/")[0]
    if config.upstreams[upstream].api_key == "passthrough":
        raise StartError(
            f"upstreams.{upstream}.api_key is passthrough, and these questions have no client's key to pass on; give "
            "it a key of its own"
        )


def _gateway(config: Config) -> str:
    try:
        return gateway_url(config)
    except CollectorError as error:
        raise StartError("listen: names port 0; say --gateway http://127.0.0.1:PORT") from error


def _agreed(found: Estimate, told: Told, *, yes: bool) -> bool:
    print("\n".join(found.lines(told)), file=sys.stderr)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise StartError("nobody is here to agree to that; say --yes")
    try:
        return input("Ask? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
