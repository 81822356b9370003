"""How many processors there are for this process: Python tells neither its own share of them, before 3.13, nor a
container's quota."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def processors(*, cgroup: Path = _CGROUP) -> int:
    """Those that this process may use: where its container has a quota of their time, in `cgroup`, as many as that
    keeps busy. https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu"""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min([count, *_quotas(cgroup)])


def _quotas(cgroup: Path) -> Iterator[int]:
    for quota, period in (("cpu.max", "cpu.max"), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError, IndexError):  # there is none, or it is "max", or -1
            allowed, per = (cgroup / quota).read_text().split()[0], (cgroup / period).read_text().split()[-1]
            if int(allowed) > 0:
                yield math.ceil(int(allowed) / int(per))
