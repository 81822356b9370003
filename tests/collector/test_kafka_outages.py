"""Brokers and collectors are killed, freeze or stay away: what was acknowledged is there once, in order."""

import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from kafka_broker import Broker

from collector import EventLog, LogError, Record, Stream, open_log
from router.config_kafka import KafkaSettings

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("swept"),
    pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning"),
]

KEYS = "rs"


def records(names: list[str]) -> list[tuple[Stream, Record]]:
    return [(Stream.EVIDENCE, Record(id=name, key=key, at=1.0, value=b"v" * 500)) for name in names for key in KEYS]


def kept(url: str, key: str) -> list[str]:
    log = open_log(url)
    found = [one.id for one in log.read(Stream.EVIDENCE, 0, 1_000_000, key=key)]
    log.close()
    return found


class Writer:
    """Appends as the collector does: the same records again until they are taken, then the next ones."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.acknowledged: list[str] = []
        self.refused = 0
        self.longest = 0.0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.stop.is_set():
            names = [f"{len(self.acknowledged) + i:06d}" for i in range(20)]
            while True:
                began = time.monotonic()
                try:
                    self.log.append(records(names))
                    break
                except LogError:
                    self.refused += 1
                    time.sleep(0.1)
                finally:
                    self.longest = max(self.longest, time.monotonic() - began)
            self.acknowledged += names

    def goes_on(self) -> None:
        """Wait for more than what was under way."""
        before, deadline = len(self.acknowledged), time.monotonic() + 30
        while len(self.acknowledged) < before + 60:
            assert time.monotonic() < deadline, self.refused
            time.sleep(0.05)

    def end(self) -> list[str]:
        self.stop.set()
        self.thread.join(60)
        return self.acknowledged


@pytest.fixture
def url(broker: Broker) -> Iterator[str]:
    yield broker.url(f"outage-{secrets.token_hex(4)}")
    broker.wait()


def test_a_broker_killed_amid_appends_loses_nothing_and_doubles_nothing(broker: Broker, url: str) -> None:
    log, dice = open_log(url, kafka=KafkaSettings(timeout=3.0), appender="c"), random.Random(4)
    writer = Writer(log)
    try:
        for _ in range(6):
            writer.goes_on()
            time.sleep(dice.random() * 0.3)
            broker.kill()
            time.sleep(dice.random())
            broker.start()
        writer.goes_on()
    finally:
        acknowledged = writer.end()
        log.close()
    assert len(acknowledged) >= 300
    for key in KEYS:
        assert kept(url, key) == acknowledged


def test_a_broker_that_freezes_is_waited_for(broker: Broker, url: str) -> None:
    log = open_log(url, appender="c")
    writer = Writer(log)
    writer.goes_on()
    broker.freeze(5.0)
    writer.goes_on()
    acknowledged = writer.end()
    log.close()
    assert writer.longest > 4.0
    assert [kept(url, key) for key in KEYS] == [acknowledged, acknowledged]


def test_while_the_broker_is_away_every_call_ends_with_an_error_and_leaves_nothing_behind(
    broker: Broker, url: str
) -> None:
    log = open_log(url, kafka=KafkaSettings(timeout=1.0), appender="c")
    log.append(records(["before"]))
    reading = len(log.read(Stream.EVIDENCE, 0, key="r"))
    broker.kill()
    threads = threading.active_count()
    try:
        for _ in range(3):
            for call in (
                lambda: log.append(records(["before", "after"])),
                lambda: log.read(Stream.EVIDENCE, 0, key="r"),
                lambda: log.keys(Stream.EVIDENCE),
            ):
                began = time.monotonic()
                with pytest.raises(LogError):
                    call()
                assert time.monotonic() - began < 15.0  # and not for ever; four timeouts, and a slow machine
        assert threading.active_count() <= threads
    finally:
        broker.start()
        broker.wait()
    assert reading == 1
    log.append(records(["before", "after"]))
    log.close()
    assert kept(url, "r") == ["before", "after"]


# Sends a transaction, freezes before it is committed, and when it is thawed does as a collector does.
FROZEN = """
import os, signal, sys
from collector import LogError, Record, Stream, open_log
log = open_log(sys.argv[1], appender="c")
producer = log._appender._producer
def freeze(timeout):
    del producer.flush
    producer.flush(timeout)
    print("sent", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
producer.flush = freeze
records = [(Stream.EVIDENCE, Record(id=f"{i:06d}", key=key, at=1.0, value=b"old")) for i in range(10) for key in "rs"]
try:
    log.append(records)
    print("taken")
except LogError as error:
    print("refused", error)
    log.append(records)
log.close()
"""


def test_a_collector_that_was_frozen_amid_an_append_comes_too_late(broker: Broker, url: str) -> None:
    old = subprocess.Popen([sys.executable, "-c", FROZEN, url], stdout=subprocess.PIPE, text=True)
    assert old.stdout
    assert old.stdout.readline() == "sent\n"
    new = open_log(url, appender="c")
    assert new.read(Stream.EVIDENCE, 0, key="r") == []  # what was not committed is not to be seen
    new.append(records([f"{i:06d}" for i in range(5, 15)]))
    old.send_signal(signal.SIGCONT)
    said, _ = old.communicate(timeout=60)
    assert said.startswith("refused")
    with pytest.raises(LogError, match="Fenced"):  # in its turn
        new.append(records([f"{i:06d}" for i in range(20)]))
    new.append(records([f"{i:06d}" for i in range(20)]))
    new.close()
    assert old.returncode == 0
    order = [*range(5, 15), *range(5), *range(15, 20)]
    assert [kept(url, key) for key in KEYS] == [[f"{i:06d}" for i in order]] * 2


def test_collectors_of_several_hosts_append_side_by_side(broker: Broker, url: str) -> None:
    logs = [open_log(url, appender=name) for name in "abc"]
    threads = [
        threading.Thread(target=lambda n=n: [logs[n].append(records([f"{n}-{i}"])) for i in range(20)])
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for log in logs:
        log.close()
    for key in KEYS:
        found = kept(url, key)
        assert [[one for one in found if one[0] == str(n)] for n in range(3)] == [
            [f"{n}-{i}" for i in range(20)] for n in range(3)
        ]


def test_a_new_collector_knows_what_its_predecessor_appended(broker: Broker, url: str) -> None:
    names = [f"{i:06d}" for i in range(5000)]
    for appender in ("c", "c", "another"):
        log = open_log(url, appender=appender)
        for i in range(0, len(names), 500):
            log.append(records(names[i : i + 500]))
        log.close()
    assert kept(url, "r") == names
