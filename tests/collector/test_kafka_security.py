"""Getting into a Kafka: logins, certificates, and what is said where it lets nobody in."""

import logging
import secrets
import threading
from pathlib import Path
from typing import Any

import pytest
from kafka_broker import PASSWORD, USER, Broker

from collector import LogError, Record, Stream, open_log
from router.config_kafka import KafkaSettings

pytestmark = [
    pytest.mark.service,
    pytest.mark.usefixtures("swept"),
    pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning"),
]


def settings(broker: Broker, **more: Any) -> KafkaSettings:
    files = {name: str(broker.folder / value) for name, value in more.items() if name.endswith("_file")}
    return KafkaSettings.model_validate({**more, **files})


def login(mechanism: str, password: str = PASSWORD, **more: Any) -> dict[str, Any]:
    safe = mechanism != "PLAIN"
    return {
        "security_protocol": "SASL_SSL" if safe else "SASL_PLAINTEXT", "sasl_mechanism": mechanism,
        "username": USER, "password": password, **({"ca_file": "ca.pem"} if safe else {}), **more,
    }  # fmt: skip


CERTIFICATES = {"security_protocol": "SSL", "ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.pem"}


@pytest.mark.parametrize(
    ("listener", "more"),
    [
        ("login", login("PLAIN")),
        ("safe_login", login("SCRAM-SHA-256")),
        ("safe_login", login("SCRAM-SHA-512")),
        ("tls", CERTIFICATES),
    ],
)
def test_who_may_come_in_appends_reads_and_joins_a_group(broker: Broker, listener: str, more: dict[str, Any]) -> None:
    log = open_log(broker.url(f"in-{secrets.token_hex(4)}", listener), kafka=settings(broker, **more), appender="a")
    log.append([(Stream.EVIDENCE, Record(id="a", key="r", at=1.0, value=b"v"))])
    assert [one.id for one in log.read(Stream.EVIDENCE, 0, key="r")] == ["a"]
    member = log.consumer(Stream.EVIDENCE, group="g")
    assert [one.id for one in member.poll(seconds=20)] == ["a"]
    member.close()
    log.close()


@pytest.mark.parametrize(
    ("listener", "more", "said"),
    [
        ("login", login("PLAIN", "secret-wrong"), "refuses the login; check username, password"),
        ("safe_login", login("SCRAM-SHA-512", "secret-wrong"), "refuses the login; check username, password"),
        ("safe_login", login("SCRAM-SHA-256", ca_file="other_ca.pem"), "certificate that ca_file doesn't vouch for"),
        ("tls", {"security_protocol": "SSL", "ca_file": "ca.pem"}, "cert_file"),
        ("tls", {}, "or security_protocol"),
        ("plain", CERTIFICATES, "doesn't speak TLS"),
    ],
)
def test_who_may_not_is_told_why_and_no_password_is_said(
    broker: Broker, listener: str, more: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, before = broker.url("x", listener), threading.active_count()
    with caplog.at_level(logging.DEBUG):
        for begin in ({}, {"appender": "a"}):  # what reads, and what appends
            with pytest.raises(LogError, match=said) as refused:
                open_log(url, kafka=settings(broker, timeout=1.0, **more), **begin).keys(Stream.EVIDENCE)
            assert "secret-wrong" not in str(refused.value)
    assert "secret-wrong" not in caplog.text
    assert threading.active_count() <= before  # failed clients leave nothing running


def test_a_place_without_a_broker_is_told() -> None:
    brief = KafkaSettings(timeout=1.0)
    with pytest.raises(LogError, match=r"nobody answers at 127\.0\.0\.1:1 \(Connection refused\)"):
        open_log("kafka://127.0.0.1:1/x", kafka=brief, appender="a")
    with pytest.raises(LogError, match=r"the host 'nowhere\.invalid' is not known"):
        open_log("kafka://nowhere.invalid:9092/x", kafka=brief, appender="a")
    with pytest.raises(LogError, match="write kafka://HOST:PORT"):
        open_log("kafka://user:secret@h:9092/x")


def test_certificates_that_can_not_be_read_are_told(tmp_path: Path) -> None:
    tls = KafkaSettings(security_protocol="SSL", ca_file=str(tmp_path / "nothing.pem"))
    with pytest.raises(LogError, match=r"certificates can't be used \(.*nothing.pem\)"):
        open_log("kafka://127.0.0.1:1/x", kafka=tls, appender="a")
