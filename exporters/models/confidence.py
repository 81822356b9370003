"""How sure a student is of one answer: P(it agrees with the teacher), by what was calibrated on held-out records.

`confidence.json` in the artefact holds two maps of the same form, for whole answers and for their beginnings:

    z = bias + sum_i weight_i (x_i - centre_i) / scale_i,    P = 1 / (1 + exp(-(slope z + shift)))

a logistic regression on standardised features (`signals`), and Platt's scaling of it (Platt 1999), fitted on other
records. Serving evaluates it in pure Python. Without a map (an artefact from before there was one, or too few records
to fit it) the confidence is exp(mean log probability), the geometric mean of the tokens' probabilities.

An input that is unlike the training set's (`novelty`) has the confidence 0 whatever the answer; no other has.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from exporters.models.errors import CorruptArtefact
from exporters.models.signals import FEATURES, PREFIX_TOKENS, Signals, prefix_signals, signals

if TYPE_CHECKING:
    from exporters.models.novelty import Neighbours

FILE = "confidence.json"
NOVELTY_FILE = "novelty.data"  # tensors, too; but who loads a model folder loads all of its *.safetensors
SCHEMA = 1
DIGITS = 6  # as a header carries it, so that a threshold means the same offline and live
SMALLEST = 10.0**-DIGITS  # of any answer to an input that is not novel
FARTHEST = 6.0  # standard deviations that a feature may lie from its centre: beyond, nothing was learnt


class Curve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One map. `features`: their names, always FEATURES, so that an artefact of other features is refused."""

    features: tuple[str, ...] = FEATURES
    centres: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    slope: float
    shift: float

    def __post_init__(self) -> None:
        if self.features != FEATURES:
            raise ValueError(
                f"the features are {', '.join(self.features)}; this version computes {', '.join(FEATURES)}"
            )
        if {len(self.centres), len(self.scales), len(self.weights)} != {len(FEATURES)}:
            raise ValueError(f"centres, scales and weights need one number for each of {len(FEATURES)} features")
        numbers = (*self.centres, *self.scales, *self.weights, self.bias, self.slope, self.shift)
        if not all(map(math.isfinite, numbers)):
            raise ValueError("every number must be finite")
        if min(self.scales) <= 0.0 or self.slope <= 0.0:
            raise ValueError("scales and slope must be above 0")

    def score(self, values: Sequence[float]) -> float:
        """z, before Platt's scaling."""
        z = self.bias
        for value, centre, scale, weight in zip(values, self.centres, self.scales, self.weights, strict=True):
            z += weight * min(max((value - centre) / scale, -FARTHEST), FARTHEST)
        return z

    def probability(self, values: Sequence[float]) -> float:
        """P, in (0, 1)."""
        z = min(max(self.slope * self.score(values) + self.shift, -500.0), 500.0)
        return 1.0 / (1.0 + math.exp(-z))


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input whose novelty is above `threshold` is unlike the training set. `examples`: of it that are kept."""

    threshold: float
    examples: int

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 2.0:  # 1 - cosine; also refuses nan
            raise ValueError(f"a novelty's threshold lies in [0, 2], got {self.threshold}")


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. `method`: logistic | mean_probability (then `reason` says why there is no map). `records`: how many
    the map was fitted on, and how many it was scaled on."""

    schema: int = SCHEMA
    method: Literal["logistic", "mean_probability"]
    reason: str | None = None
    prefix_tokens: int = PREFIX_TOKENS
    whole: Curve | None = None
    prefix: Curve | None = None
    novelty: Gate | None = None
    records: dict[str, int] = {}

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema} is not {SCHEMA}; serve it with the version that exported it")
        if self.prefix_tokens < 1:
            raise ValueError(f"prefix_tokens must be at least 1, got {self.prefix_tokens}")
        if (self.method == "logistic") != (self.whole is not None and self.prefix is not None):
            raise ValueError("method logistic needs the maps whole and prefix, and the other method has none")


NONE = Calibration(method="mean_probability", reason=f"the artefact holds no {FILE}")


class Confidence:
    """One artefact's. `neighbours`: of `calibration.novelty`."""

    def __init__(self, calibration: Calibration = NONE, neighbours: "Neighbours | None" = None) -> None:
        self.calibration = calibration
        self.prefix_tokens = calibration.prefix_tokens
        self._neighbours = neighbours if calibration.novelty is not None else None

    @classmethod
    def load(cls, folder: Path) -> "Confidence":
        """Of an artefact's folder. Raises CorruptArtefact where a file is there and can't be used."""
        calibration = read(folder)
        if calibration.novelty is None:
            return cls(calibration)
        from exporters.models.novelty import Neighbours  # noqa: PLC0415 - numpy: only workers and the retrainer pay

        return cls(calibration, Neighbours.load(folder / NOVELTY_FILE))

    def novelty(self, messages: Sequence[Mapping[str, str]]) -> float:
        """How unlike the training set's an input is: 1 - mean cosine of the nearest, in [0, 2]; 0 without a gate."""
        return 0.0 if self._neighbours is None else self._neighbours.novelty(messages)

    def novel(self, novelty: float) -> bool:
        """Whether that is too much for any confidence."""
        gate = self.calibration.novelty
        return gate is not None and novelty > gate.threshold

    def whole(self, logprobs: Sequence[float], *, finished: bool, novelty: float) -> float:
        """The confidence of a whole answer, in [SMALLEST, 1], or 0 where the input is novel."""
        return self.of(signals(logprobs, finished=finished), novelty=novelty)

    def prefix(self, logprobs: Sequence[float], *, finished: bool, novelty: float) -> float:
        """The same of an answer's beginning. `logprobs`: of at least `prefix_tokens` tokens, or of all."""
        found = prefix_signals(logprobs, finished=finished, tokens=self.prefix_tokens)
        return self.of(found, novelty=novelty, prefix=True)

    def of(self, found: Signals, *, novelty: float, prefix: bool = False) -> float:
        """The same of what is known already of an answer, or of its beginning."""
        if self.novel(novelty):
            return 0.0
        curve = self.calibration.prefix if prefix else self.calibration.whole
        value = math.exp(found.mean) if curve is None else curve.probability(found.features(novelty))
        return round(min(max(value, SMALLEST), 1.0), DIGITS)


def read(folder: Path) -> Calibration:
    """An artefact's confidence.json; NONE where it holds none. Raises CorruptArtefact."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Calibration)
    except FileNotFoundError:
        return NONE
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptArtefact(f"{path} can't be used: {error}; export the version again") from error
