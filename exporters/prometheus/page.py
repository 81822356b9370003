"""The /metrics page: of this process, or of all processes that share PROMETHEUS_MULTIPROC_DIR.

prometheus_client chooses how it stores values when it is imported, so the variable must be set before that; `retort`
does.
"""

from functools import cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from exporters.prometheus.metrics import Metrics
from exporters.prometheus.subscribe import Subscriber


@cache
def _registry() -> CollectorRegistry:
    return CollectorRegistry()


@cache
def subscriber() -> Subscriber:
    """This process's subscriber; its series are registered when it is first asked for."""
    return Subscriber(Metrics(_registry()))


def render() -> tuple[bytes, str]:
    """The page in Prometheus' text format, and its content type. Reads files when several processes share it."""
    if values.ValueClass is values.MutexValue:
        return generate_latest(_registry()), CONTENT_TYPE_LATEST
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return generate_latest(shared), CONTENT_TYPE_LATEST
