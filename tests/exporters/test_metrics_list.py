"""The documentation's list of series is the list of series."""

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics import MetricWrapperBase

from exporters.prometheus.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs/metrics.md"


def rows() -> list[str]:
    found = [each for each in vars(Metrics(CollectorRegistry())).values() if isinstance(each, MetricWrapperBase)]
    return [
        f"| `{each._name}{'_total' if isinstance(each, Counter) else ''}` | {each._type} "
        f"| {', '.join(each._labelnames)} | {each._documentation} |"
        for each in found
    ]


def test_the_page_lists_every_series_with_its_labels() -> None:
    listed = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert listed == rows(), "\n".join(rows())
