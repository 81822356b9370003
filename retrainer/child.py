"""One cycle in a process of its own on this machine: it is told its order by a pipe, tells its events by another, and
ends when it is told to."""

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from retrainer.stopping import GRACE_SECONDS

# A worker bounds its own end; less than the part of a lease that Leases keeps for it.
STOP_SECONDS = GRACE_SECONDS + 5.0

Tell = Callable[[bytes], str | None]


async def run_child(
    worker: Sequence[str],
    order: Mapping[str, Any],
    stops: Collection[asyncio.Event],
    *,
    tell: Tell,
    at_once: Callable[[], bool],
) -> tuple[int, str | None]:
    """Run it to its end, or until one of `stops`; its exit status, and the error that it told. `tell`: takes each line
    that it prints, and gives the error that stands in it. `at_once`: whether a stop leaves no time to save anything."""
    child = await asyncio.create_subprocess_exec(
        *worker,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("a child process without pipes")  # never: both were asked for
    child.stdin.write(json.dumps(order).encode() + b"\n")  # by a pipe: the configuration may hold keys
    listening = asyncio.create_task(_listen(child.stdout, tell))
    stopping = [asyncio.create_task(event.wait()) for event in stops]
    ending = asyncio.create_task(child.wait())
    await asyncio.wait({*stopping, ending}, return_when=asyncio.FIRST_COMPLETED)
    if not ending.done():
        (child.kill if at_once() else child.terminate)()
        try:
            await asyncio.wait_for(asyncio.shield(ending), STOP_SECONDS)
        except TimeoutError:
            child.kill()
    for task in stopping:
        task.cancel()
    code = await ending
    error = await listening
    child.stdin.close()
    return code, error


async def _listen(output: asyncio.StreamReader, tell: Tell) -> str | None:
    error = None
    while True:
        try:
            line = await output.readline()
        except ValueError:  # longer than what is held: a library's, no word of ours
            continue
        if not line:
            return error
        error = tell(line) or error
