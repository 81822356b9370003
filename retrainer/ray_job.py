"""A cycle's heavy phases as a job on a Ray cluster, by its Jobs API over HTTP: this machine needs no ray for it.

The cluster shares the state folder, at the same path, and has the same Python; log, registry and keys stay here. What a
job leaves is in the cycle's folder, so that a job that was stopped, or lost with its node, is simply submitted again.
"""

import asyncio
import json
import logging
import os
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx
import msgspec

from exporters.models import write_atomic
from retrainer.state import Request
from router.config import Config

log = logging.getLogger("retort.retrainer")

POLL_SECONDS = 2.0
MOST_UNREACHABLE = 30  # looks in a row
CALL_SECONDS = 30.0
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_CYCLE = "retort_cycle"
_AT_HOME = ("log", "registry", "subjects", "kafka", "spool", "ray", "artefacts", "artefact_policy")  # keys among them


class RayFailed(Exception):
    """The cluster can't be asked (`away`), or lost the job; may be tried again."""

    def __init__(self, said: str, *, away: bool = False) -> None:
        super().__init__(said)
        self.away = away


def write_order(config: Config, request: Request, folder: Path) -> Path:
    """What the job is to do, for it to read from the cycle's folder: without keys and passwords, which it has no use
    for."""
    given = config.model_dump(mode="json", exclude={*_AT_HOME})
    given["state"] = str(Path(config.state).absolute())
    for upstream in given["upstreams"].values():
        upstream["api_key"] = ""  # without it, it would be the clients' own, with which a judge can't be asked
        del upstream["stand_in"]
    path = folder.absolute() / "order.json"
    write_atomic(path, json.dumps({"config": given, "request": msgspec.to_builtins(request)}).encode())
    return path


async def run_job(
    address: str, order: Path, cycle_id: str, stops: Collection[asyncio.Event], *, token: str | None = None
) -> tuple[int, str]:
    """Submit the job, or go on with one of the same cycle that runs already; wait until it ends, or until one of
    `stops`, which stops it. Returns its exit status and what it printed. Raises RayFailed."""
    base = address.replace("ray://", "http://", 1)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=CALL_SECONDS, trust_env=False) as client:
        try:
            name = await _running(client, cycle_id) or await _submit(client, order, cycle_id)
            log.info("retrainer.ray_job", extra={"cycle": cycle_id, "job": name})
            details = await _until_ended(client, name, stops)
            printed = (await _asked(client, "GET", f"/api/jobs/{name}/logs")).get("logs") or ""
        except httpx.HTTPError as error:
            told = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
            raise RayFailed(f"Ray at {address}: {type(error).__name__}: {error}", away=not told) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # JSON of something else, or none
            raise RayFailed(
                f"what answers at {address} is no Jobs API of Ray ({error!r}); retrain.on is its address, by default "
                "ray://HOST:8265"
            ) from error
    status, code = details.get("status"), details.get("driver_exit_code")
    if status == "SUCCEEDED":
        return 0, printed
    if status == "STOPPED" or code is None:
        raise RayFailed(f"Ray at {address}: job {name} is {status}: {details.get('message')}")
    return int(code), printed


async def _running(client: httpx.AsyncClient, cycle_id: str) -> str | None:
    jobs: Any = await _asked(client, "GET", "/api/jobs/")
    for job in jobs:
        if (job.get("metadata") or {}).get(_CYCLE) == cycle_id and job.get("status") not in _ENDED:
            return str(job["submission_id"])
    return None


async def _submit(client: httpx.AsyncClient, order: Path, cycle_id: str) -> str:
    # The folder in which this process runs: paths in the configuration may be relative.
    command = f"cd {shlex.quote(os.getcwd())} && exec {shlex.quote(sys.executable)} -m retrainer.worker "  # noqa: PTH109
    body = {"entrypoint": command + shlex.quote(str(order)), "metadata": {_CYCLE: cycle_id}}
    return str((await _asked(client, "POST", "/api/jobs/", json=body))["submission_id"])


async def _until_ended(client: httpx.AsyncClient, name: str, stops: Collection[asyncio.Event]) -> dict[str, Any]:
    unreachable, stopped = 0, False
    while True:
        try:
            details: dict[str, Any] = await _asked(client, "GET", f"/api/jobs/{name}")
            unreachable = 0
            if details.get("status") in _ENDED:
                return details
            if not stopped and any(event.is_set() for event in stops):
                await _asked(client, "POST", f"/api/jobs/{name}/stop")
                stopped = True
        except httpx.HTTPError:
            unreachable += 1
            if unreachable >= MOST_UNREACHABLE or stopped:
                raise
        await _pause(stops, 0.2 if stopped else POLL_SECONDS)


async def _asked(client: httpx.AsyncClient, method: str, path: str, **what: Any) -> Any:
    reply = await client.request(method, path, **what)
    reply.raise_for_status()
    return reply.json()


async def _pause(stops: Collection[asyncio.Event], seconds: float) -> None:
    """Until one of them is set, so many seconds at most; where one is, just so long."""
    if any(event.is_set() for event in stops):
        await asyncio.sleep(seconds)
        return
    waiting = [asyncio.create_task(event.wait()) for event in stops]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
