"""What an operator says about a route's cycles besides how the student learns."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from router.policy_fields import Strict


def _with_a_port(address: str) -> str:
    if int(address.rpartition(":")[2]) > 65535:
        raise ValueError("a port is at most 65535")
    return address


Cluster = Annotated[str, StringConstraints(pattern=r"^ray://[\w.-]+:\d+$"), AfterValidator(_with_a_port)]


class DriftPolicy(Strict):
    """A cycle starts when inputs have shifted away from the data set's. `threshold`: of the population stability index
    (PSI), above which Siddiqi 2006 calls a population shifted. `window`: inputs that are compared at a time."""

    threshold: float = Field(0.25, gt=0.0)
    window: int = Field(500, ge=50)


class TrackingPolicy(Strict):
    """Where cycles are told of besides: one of the two. `mlflow`: a tracking server's URI, such as
    http://127.0.0.1:5000, or sqlite:///FILE, and `experiment` there. `wandb`: a project of Weights & Biases, or
    ENTITY/PROJECT. Credentials come from the clients' own environment variables."""

    mlflow: str | None = None
    experiment: str | None = Field(None, min_length=1)
    wandb: Annotated[str, StringConstraints(pattern=r"^([\w.-]+/)?[\w.-]{1,128}$")] | None = None

    @field_validator("mlflow")
    @classmethod
    def _without_a_password(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if re.match(r"(https?|sqlite|file):", value) is None:
            raise ValueError("write http(s)://HOST:PORT, sqlite:///FILE or file:///FOLDER")
        if "@" in value:
            raise ValueError("leave user and password out: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.mlflow is None) == (self.wandb is None):
            raise ValueError("name one of mlflow and wandb")
        if self.wandb is not None and self.experiment is not None:
            raise ValueError("experiment is of mlflow; with wandb, name the project: wandb: PROJECT or ENTITY/PROJECT")
        return self


class RaySettings(Strict):
    """Of all clusters that `retrain.on` names. `token`: what a cluster with token authentication asks for; it stands
    here, and not in a route's policy, which goes into the log."""

    token: str | None = Field(None, repr=False)
