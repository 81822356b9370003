"""A real PostgreSQL for tests: an installed one, or what scripts/services fetched, on a free port of loopback."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from exporters.child import ending_with
from retort.demo.settings import free_ports

FETCHED = Path(__file__).parents[1] / ".services" / "postgres"
USER, PASSWORD = "retort", "p@ss/w:rd%"
START_SECONDS = 60.0


class Postgres:
    """The server, which may be killed, started again, frozen and thawed."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._data = folder / "data"
        self._log = folder / "log"
        self._password = folder / "password"
        (self.port,) = free_ports(1)
        # It refuses to run as root.
        self._as: dict[str, object] = {}
        if os.getuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
            self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        libraries = [str(folder) for folder in FETCHED.glob("usr/lib/*-linux-gnu")]
        self._environ = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": ":".join(libraries)}
        self._process: subprocess.Popen[bytes] | None = None
        self._initialise()
        self.start()

    def _initialise(self) -> None:
        self._password.write_text(PASSWORD)
        # A language's order of words, as most servers have it: the stores' own must not depend on it.
        subprocess.run(
            [
                self._binaries / "initdb", "--no-sync", "--auth=scram-sha-256", "--encoding=UTF8",
                f"--username={USER}", f"--pwfile={self._password}", f"--pgdata={self._data}",
                "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US",
            ],
            check=True, capture_output=True, cwd="/", env=self._environ, **self._as,
        )  # fmt: skip

    def start(self) -> None:
        """Start, and wait until it answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    self._binaries / "postgres", "-D", self._data, "-p", str(self.port), "-h", "127.0.0.1",
                    "-c", "fsync=off", "-c", "unix_socket_directories=", "-c", "shared_buffers=16MB", "-c", "jit=off",
                ],
                stdout=output, stderr=output, cwd="/", env=self._environ, preexec_fn=ending_with(os.getpid()),
                **self._as,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.run("SELECT 1")
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """At once, without the goodbyes of a shutdown; what was committed is recovered at the next start."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of it stopped, while the kernel goes on taking bytes and connections for them."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)  # first, so that it has no more children
        family = [self._process.pid, *_children(self._process.pid)]
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in family:
                os.kill(pid, signal.SIGCONT)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str = "postgres", *, password: str = "p%40ss%2Fw%3Ard%25") -> str:
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str) -> None:
        """One statement of the administrator's."""
        connection = psycopg.connect(self.url(), autocommit=True)
        with contextlib.closing(connection):
            connection.execute(statement)


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def _binaries() -> Path:
    installed = shutil.which("postgres")
    places = [Path(installed).resolve().parent] if installed else []
    for root in (Path("/"), FETCHED):
        places += sorted(root.glob("usr/lib/postgresql/*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    if os.environ.get("CI"):
        pytest.fail("no PostgreSQL: scripts/services did not run")
    pytest.skip("scripts/services fetches PostgreSQL")


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """Until the end of the block."""
    binaries = _binaries()
    # Not in pytest's own folder, which is closed to the user that the server runs as.
    folder = Path(tempfile.mkdtemp(prefix="retort-postgres-"))
    try:
        server = Postgres(binaries, folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
