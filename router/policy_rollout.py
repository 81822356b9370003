"""What an operator says about the canary's steps, and what each needs."""

from typing import Any

from pydantic import Field, model_validator

from router.policy_fields import Rate, Seconds, Step, Strict

_HOUR, _DAY = 3600.0, 86400.0

# Steps, and how long each lasts at the least. cautious: 5/10/25/50/75/100% on days 1, 2, 3, 4-7, 8-14, 15-30.
# fast: 5/10/25/50/100% at hours 0, 2, 6, 12, 24.
PRESETS: dict[str, dict[str, Any]] = {
    "cautious": {
        "steps": (0.05, 0.10, 0.25, 0.50, 0.75, 1.0),
        "min_dwell": (_DAY, _DAY, _DAY, 4 * _DAY, 7 * _DAY, 16 * _DAY),
        "parallel": 2 * _DAY,
    },
    "fast": {
        "steps": (0.05, 0.10, 0.25, 0.50, 1.0),
        "min_dwell": (2 * _HOUR, 4 * _HOUR, 6 * _HOUR, 12 * _HOUR, 0.0),
    },
}


class RolloutPolicy(Strict):
    """The canary's steps (shares of eligible traffic), and what each needs.

    `min_dwell`: seconds at each step, one number for all or one a step. `probe`: before a step is taken, the student
    is asked besides for so long at that step's request rate, and must keep its SLO; 0 takes the step without.
    `parallel`: after it went live, so long the teacher is asked besides for every answer of the student.
    """

    steps: tuple[Step, ...] = (0.05, 0.10, 0.25, 0.50, 0.75, 1.0)
    min_dwell: Seconds | tuple[Seconds, ...] = 86400.0
    min_requests: int = Field(200, ge=0)
    holdback: Rate = 0.03
    probe: Seconds = 0.0
    parallel: Seconds = 0.0
    detector_threshold: float = Field(3000.0, gt=1.0, description="mean run length to a false alarm, at the least")
    no_pairs_after: Seconds = 900.0
    no_pairs_requests: int = Field(100, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        """`rollout: fast`, or `rollout: {preset: fast, ...}` with some keys of its own."""
        if isinstance(data, str):
            data = {"preset": data}
        if not isinstance(data, dict) or "preset" not in data:
            return data
        preset = PRESETS.get(data["preset"])
        if preset is None:
            raise ValueError(f"no preset {data['preset']!r}; there are: {', '.join(PRESETS)}")
        own = {key: value for key, value in data.items() if key != "preset"}
        if "steps" in own and "min_dwell" not in own:
            raise ValueError("a preset's dwells are of its own steps; with other steps, give min_dwell too")
        return {**preset, **own}

    @model_validator(mode="after")
    def _rising(self) -> "RolloutPolicy":
        if not self.steps:
            raise ValueError("steps is empty; give at least [1.0]")
        if any(a >= b for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError(f"steps must rise, for example [0.05, 0.25, 1.0]; got {list(self.steps)}")
        if isinstance(self.min_dwell, tuple) and len(self.min_dwell) != len(self.steps):
            raise ValueError(
                f"min_dwell has {len(self.min_dwell)} durations for {len(self.steps)} steps; give one each"
            )
        if self.holdback >= 0.5:
            raise ValueError(f"holdback is the share that stays with the teacher, under 0.5; got {self.holdback}")
        return self

    def dwell(self, step: int) -> float:
        """Seconds that a step (from 0) lasts at the least."""
        return self.min_dwell[step] if isinstance(self.min_dwell, tuple) else self.min_dwell
