"""A real Kafka broker for tests: started at first use, and killed, frozen and started again by them."""

import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from collector import LogError, open_log
from retort.demo.settings import free_ports
from router.config_kafka import KafkaSettings

ROOT = Path(__file__).parents[1]
USER, PASSWORD = "retort", "pass-of-a-test"

# Beside plain connections: a login, a login over TLS, and TLS that asks for the client's certificate. Compaction starts
# at once instead of every 15 s.
MORE = """
listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},LOGIN://127.0.0.1:{login},\
SAFELOGIN://127.0.0.1:{safe_login},TLS://127.0.0.1:{tls}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},LOGIN://127.0.0.1:{login},SAFELOGIN://127.0.0.1:{safe_login},\
TLS://127.0.0.1:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT,SAFELOGIN:SASL_SSL,TLS:SSL
listener.name.login.sasl.enabled.mechanisms=PLAIN
listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.safelogin.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.safelogin.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.safelogin.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.tls.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
log.cleaner.backoff.ms=200
"""


class Broker:
    """One broker in a process group of its own. `folder`: its data and its certificates (ca.pem, client.pem)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("plain", "controller", "login", "safe_login", "tls")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        make_certificates(folder)
        values = {**self.ports, "folder": folder, "user": USER, "password": PASSWORD}
        (folder / "more.properties").write_text(MORE.format(**values))

    def url(self, prefix: str, listener: str = "plain") -> str:
        """Where a log with this prefix is."""
        return f"kafka://127.0.0.1:{self.ports[listener]}/{prefix}"

    def start(self) -> None:
        """Start it, in the state in which it was. Its port opens seconds before it is ready; nothing waits for that."""
        scram = [
            argument
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
        ]
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [ROOT / "scripts/kafka", self.folder, str(self.ports["plain"]), str(self.ports["controller"]),
                 self.folder / "more.properties", *scram],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Until it does what a log asks of it."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return open_log(self.url("ready"), kafka=KafkaSettings(timeout=2.0), appender="first").close()
            except LogError:
                assert time.monotonic() < deadline, (self.folder / "broker.log").read_text()[-2000:]
                time.sleep(0.2)

    def kill(self) -> None:
        """As a power cut would."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self) -> None:
        """In good order."""
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGTERM)
            self._process.wait(timeout=60)

    def freeze(self, seconds: float) -> None:
        """Do nothing for so long, with every connection open."""
        self._signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)


def make_certificates(folder: Path) -> None:
    """ca.pem; broker.pem and client.pem (key and certificate), signed by it; other_ca.pem, which signed nothing."""
    ca_key, ca = _certificate("a test's CA", None)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    _, other = _certificate("another CA", None)
    (folder / "other_ca.pem").write_bytes(other.public_bytes(serialization.Encoding.PEM))
    for name in ("broker", "client"):
        key, made = _certificate(name, (ca_key, ca))
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.pem").write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))


def _certificate(
    name: str, signer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing, issuer = (signer[0], signer[1].subject) if signer else (key, subject)
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=signer is None, crl_sign=signer is None, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    )
    if signer:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return key, builder.sign(signing, hashes.SHA256())
