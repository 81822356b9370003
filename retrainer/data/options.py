"""What a build of a data set may need besides the log."""

from pathlib import Path

import msgspec

from retrainer.data.consistency import Second
from retrainer.data.curate import Unserved
from retrainer.data.meanings import Encode
from retrainer.progress import Progress, silent
from router.policy_data import DataPolicy


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`work`: the folder to work in, where a build that was killed goes on; without one it is a temporary folder.
    `teachers`: UPSTREAM/MODEL of those whose answers may be learnt, None for all that are logged. `suite`: the file of
    the route's regression suite; `joined`: of the groups that its conversations stand in; `held_out`: of what the
    operator judges by. `encode`: needed where prompts are compared by meaning; `second`: where the teacher is asked
    again. `tools`: whether the route's students learn to call tools. `unserved`: what is asked that no student of the
    route may answer."""

    policy: DataPolicy = DataPolicy()
    work: Path | None = None
    teachers: tuple[str, ...] | None = None
    suite: Path | None = None
    joined: Path | None = None
    held_out: Path | None = None
    encode: Encode | None = None
    second: Second | None = None
    tools: bool = False
    unserved: Unserved | None = None
    progress: Progress = silent


PLAIN = Options()
