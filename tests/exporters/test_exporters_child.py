"""A program ends with all that it started: when it ends, when it is told to, and when its parent is gone."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from exporters import child

# Starts a sleeper, tells its id, and ends by STATUS, or sleeps.
PROGRAM = """
import os, subprocess, sys, tempfile, time
below = subprocess.Popen(["sleep", "60"])
open(sys.argv[1] + "-left", "w").write(tempfile.mkdtemp())
open(sys.argv[1] + "-new", "w").write(str(below.pid))
os.replace(sys.argv[1] + "-new", sys.argv[1])
sys.exit(int(sys.argv[2])) if len(sys.argv) > 2 else time.sleep(60)
"""
# A parent of the runner, which is killed.
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, sys.argv[1], str(os.getpid()), *sys.argv[2:]])
time.sleep(60)
"""


def below(told: Path) -> int:
    deadline = time.monotonic() + 30
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(told.read_text())


def nothing_left(told: Path) -> bool:
    """Neither the process below nor the program's temporary files, soon."""
    sleeper, temporary = below(told), Path(Path(f"{told}-left").read_text()).parent
    assert temporary != Path(tempfile.gettempdir())
    deadline = time.monotonic() + 10
    while alive(sleeper) or temporary.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def start(told: Path, *more: str) -> "subprocess.Popen[bytes]":
    line = [sys.executable, child.__file__, str(os.getpid()), sys.executable, "-c", PROGRAM, str(told), *more]
    return subprocess.Popen(line)


@pytest.mark.parametrize("status", [0, 3])
def test_when_it_ends_by_itself_its_status_is_told(tmp_path: Path, status: int) -> None:
    told = tmp_path / "pid"
    with start(told, str(status)) as process:
        assert process.wait(30) == status
    assert nothing_left(told)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_a_sigterm_and_not_at_a_terminals_ctrl_c(tmp_path: Path, by: signal.Signals) -> None:
    told = tmp_path / "pid"
    with start(told) as process:
        below(told)
        process.send_signal(by)
        if by is signal.SIGINT:
            time.sleep(0.3)
            assert process.poll() is None
            process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert nothing_left(told)


def test_the_program_may_remove_what_it_has_outside_of_itself(tmp_path: Path) -> None:
    told, outside = tmp_path / "pid", tmp_path / "outside"
    tidy = "import atexit, os, signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
    tidy += f"open({str(outside)!r}, 'w').close()\natexit.register(os.remove, {str(outside)!r})\n"
    line = [sys.executable, child.__file__, str(os.getpid()), sys.executable, "-c", tidy + PROGRAM, str(told)]
    with subprocess.Popen(line) as process:
        below(told)
        assert outside.exists()
        process.terminate()
        process.wait(30)
    assert not outside.exists()
    assert nothing_left(told)


def test_a_program_that_will_not_end_is_ended(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PROGRAM
    with subprocess.Popen([sys.executable, child.__file__, str(os.getpid()), sys.executable, "-c", deaf, told]) as run:
        below(told)
        run.terminate()
        assert run.wait(30) == 128 + signal.SIGTERM
    assert nothing_left(told)


def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    line = [sys.executable, "-c", PARENT, child.__file__, sys.executable, "-c", PROGRAM, str(told)]
    with subprocess.Popen(line) as parent:
        below(told)
        parent.kill()
    assert nothing_left(told)


def test_the_program_ends_with_a_runner_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    program = "import os\nopen(__import__('sys').argv[1] + '-own', 'w').write(str(os.getpid()))\n" + PROGRAM
    with subprocess.Popen(
        [sys.executable, child.__file__, str(os.getpid()), sys.executable, "-c", program, told]
    ) as run:
        sleeper = below(told)
        own = int(Path(f"{told}-own").read_text())
        run.kill()
    deadline = time.monotonic() + 10
    while alive(own) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(own)
    os.kill(sleeper, signal.SIGKILL)  # what it had started is nobody's now
