"""What an operator says about a route's cycles besides how the student learns."""

import re
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from router.policy_fields import Strict

Cluster = Annotated[str, StringConstraints(pattern=r"^ray://[\w.-]+:\d+$")]


class DriftPolicy(Strict):
    """A cycle starts when inputs have shifted away from the data set's. `threshold`: of the population stability index
    (PSI), above which Siddiqi 2006 calls a population shifted. `window`: inputs that are compared at a time."""

    threshold: float = Field(0.25, gt=0.0)
    window: int = Field(500, ge=50)


class TrackingPolicy(Strict):
    """Where cycles are told of besides. `mlflow`: a tracking server's URI, such as http://127.0.0.1:5000, or
    sqlite:///FILE; credentials come from MLflow's own environment variables."""

    mlflow: str
    experiment: str = "retort"

    @field_validator("mlflow")
    @classmethod
    def _without_a_password(cls, value: str) -> str:
        if re.match(r"(https?|sqlite|file):", value) is None:
            raise ValueError("write http(s)://HOST:PORT, sqlite:///FILE or file:///FOLDER")
        if "@" in value:
            raise ValueError("leave user and password out: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return value


class RaySettings(Strict):
    """Of all clusters that `retrain.on` names. `token`: what a cluster with token authentication asks for; it stands
    here, and not in a route's policy, which goes into the log."""

    token: str | None = Field(None, repr=False)
