"""Sequential tests and e-detectors, valid however often one looks. Each is state -> state, O(1), without a clock."""

from router.sequential import error_rate, outcomes, quality, relative_latency, slo, spending, sprt
from router.sequential.mixture import Cusum, Mixture

__all__ = ["Cusum", "Mixture", "error_rate", "outcomes", "quality", "relative_latency", "slo", "spending", "sprt"]
