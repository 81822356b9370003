"""The `kafka:` block: how a Kafka that holds the log is reached, and what its topics are made with."""

import re
from typing import Literal

from pydantic import Field, model_validator

from router.policy_fields import Seconds, Strict

MOST_ROUTE_BYTES = 64  # of a route's name: it goes into a topic's, which Kafka keeps under 250
_URL = re.compile(r"kafka://([^/,@\s]+:\d+(?:,[^/,@\s]+:\d+)*)/([A-Za-z0-9-]{1,40})")


class KafkaSettings(Strict):
    """`timeout`: of each call. `replication`, `min_insync`: of topics, the cluster's own where unset. `topic`: more of
    Kafka's own settings for them. `transactional_id`: who appends, the state folder's own where unset."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = None
    password: str | None = Field(None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    timeout: Seconds = Field(10.0, ge=1.0, le=300.0)
    replication: int | None = Field(None, ge=1)
    min_insync: int | None = Field(None, ge=1)
    topic: dict[str, str | int | float] = {}
    transactional_id: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> "KafkaSettings":
        login = (self.sasl_mechanism, self.username, self.password)
        if self.security_protocol.startswith("SASL") and not all(login):
            raise ValueError(f"{self.security_protocol} needs sasl_mechanism, username and password")
        if not self.security_protocol.startswith("SASL") and any(login):
            raise ValueError(
                "sasl_mechanism, username and password need security_protocol: SASL_SSL (or SASL_PLAINTEXT)"
            )
        if not self.security_protocol.endswith("SSL") and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("ca_file, cert_file and key_file need security_protocol: SSL or SASL_SSL")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together")
        return self


def kafka_address(url: str) -> tuple[list[str], str]:
    """The brokers (`host:port`) and the topics' prefix of `kafka://host:port[,host:port]/prefix`. Raises ValueError."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(  # what was written is not shown: it may hold a password, which belongs elsewhere
            "write kafka://HOST:PORT[,HOST:PORT]/PREFIX, the prefix of at most 40 letters, digits and hyphens; "
            "username and password go into the block kafka:"
        )
    return found[1].split(","), found[2]
