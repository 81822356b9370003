"""The rooms' events as series: one small function for each event, named after it."""

from collections.abc import Callable
from typing import Any

from exporters.prometheus.metrics import Metrics

Fields = dict[str, Any]
_CHAT = "chat"


class Subscriber:
    """Call it with an event's name and fields. Events that no series is made of are passed over."""

    def __init__(self, metrics: Metrics) -> None:
        self._m = metrics
        # A series is looked up once for each combination of labels: the look-up costs more than the counting.
        self._requests: dict[tuple[Any, ...], tuple[Any, Any, Any]] = {}
        self._handlers: dict[str, Callable[[Fields], None]] = {
            name.removeprefix("_on_").replace("__", "."): getattr(self, name)
            for name in dir(self)
            if name.startswith("_on_")
        }

    def __call__(self, name: str, fields: Fields) -> None:
        """Count an event."""
        handler = self._handlers.get(name)
        if handler is not None:
            handler(fields)

    @property
    def names(self) -> frozenset[str]:
        """The events that are counted."""
        return frozenset(self._handlers)

    def _on_gateway__request(self, f: Fields) -> None:
        key = (f["route"], f["arm"], f["version"], f["status"] // 100, f["stream"], f["outcome"])
        series = self._requests.get(key)
        if series is None:
            route, arm, stream = f["route"], str(f["arm"]), "true" if f["stream"] else "false"
            status = f"{f['status'] // 100}xx"
            series = self._requests[key] = (
                self._m.requests.labels(route, arm, f["version"] or "", status, stream, f["outcome"]),
                self._m.request_seconds.labels(_CHAT, route, arm, stream),
                self._m.first_chunk_seconds.labels(_CHAT, route, arm) if f["stream"] else None,
            )
        series[0].inc()
        series[1].observe(f["seconds"])
        if series[2] is not None and f["ttft_seconds"] is not None:
            series[2].observe(f["ttft_seconds"])

    def _on_gateway__fallback(self, f: Fields) -> None:
        self._m.fallbacks.labels(f["route"], str(f["arm"]), _error(f["error"])).inc()

    def _on_gateway__deferred(self, f: Fields) -> None:
        self._m.deferred.labels(f["route"], f["version"]).inc()

    def _on_gateway__feedback(self, f: Fields) -> None:
        self._m.feedback.labels(f["outcome"]).inc()

    def _on_gateway__hard_stop(self, f: Fields) -> None:
        self._m.hard_stops.labels(f["route"], f["version"]).inc()

    def _on_gateway__shadow(self, f: Fields) -> None:
        self._m.shadows.labels(f["route"], str(f["arm"]), _error(f["outcome"])).inc()

    def _on_gateway__masked(self, f: Fields) -> None:
        self._m.masked.labels(f["route"], f["outcome"]).inc()
        self._m.mask_seconds.labels(f["route"]).observe(f["seconds"])

    def _on_gateway__capture_skipped(self, f: Fields) -> None:
        self._m.capture_skipped.labels(f["route"], f["reason"]).inc()

    def _on_collector__frames_dropped(self, f: Fields) -> None:
        self._m.frames_dropped.inc(f["count"])

    def _on_collector__capture_shed(self, f: Fields) -> None:
        self._m.capture_shed.labels(f["route"]).inc()

    def _on_collector__spool_refused(self, f: Fields) -> None:
        self._m.spool_refused.inc()

    def _on_collector__spool_damaged(self, f: Fields) -> None:
        self._m.spool_damaged.inc()

    def _on_collector__exchange(self, f: Fields) -> None:
        self._m.exchanges.labels(f["route"]).inc()

    def _on_collector__imported(self, f: Fields) -> None:
        self._m.imported.labels(f["route"]).inc()

    def _on_collector__quarantined(self, f: Fields) -> None:
        self._m.quarantined.labels(f["route"], f["reason"]).inc()

    def _on_collector__scrubbed(self, f: Fields) -> None:
        self._m.scrubbed.labels(f["entity"]).inc(f["count"])

    def _on_collector__language_unread(self, f: Fields) -> None:
        self._m.language_unread.labels(f["route"]).inc(f["count"])

    def _on_collector__memorised(self, f: Fields) -> None:
        self._m.memorised.labels(f["route"], f["version"] or "", f["entity"]).inc(f["count"])

    def _on_collector__scrub_seconds(self, f: Fields) -> None:
        self._m.scrub_seconds.observe(f["seconds"])

    def _on_collector__pair(self, f: Fields) -> None:
        self._m.pair_score.labels(f["route"], f["version"]).observe(f["score"])

    def _on_collector__pair_lost(self, f: Fields) -> None:
        self._m.pairs_lost.labels(f["route"], f["reason"]).inc()

    def _on_collector__feedback(self, f: Fields) -> None:
        self._m.reports.labels(f["route"], f["kind"], f["result"]).inc()

    def _on_collector__exposure_dropped(self, f: Fields) -> None:
        self._m.exposures_dropped.labels(f["route"]).inc()

    def _on_collector__backlog(self, f: Fields) -> None:
        self._m.backlog.set(f["bytes"])

    def _on_collector__log_failed(self, f: Fields) -> None:
        self._m.log_failed.inc()

    def _on_collector__log_full(self, f: Fields) -> None:
        self._m.log_full.inc()

    def _on_collector__subjects_failed(self, f: Fields) -> None:
        self._m.subjects_failed.inc()

    def _on_log__lag(self, f: Fields) -> None:
        self._m.lag.labels(f["reader"], f["route"]).set(f["offsets"])

    def _on_router__stage_changed(self, f: Fields) -> None:
        before, after = str(f["before"]), str(f["after"])
        self._m.stage_changes.labels(f["route"], before, after, f["cause"]).inc()
        self._m.stage.labels(f["route"], f["version"], before).set(0)
        self._m.stage.labels(f["route"], f["version"], after).set(1)

    def _on_router__evidence(self, f: Fields) -> None:
        self._m.evidence.labels(f["route"], f["version"], f["test"]).set(f["value"])
        self._m.boundary.labels(f["route"], f["version"], f["test"]).set(f["boundary"])

    def _on_router__selective(self, f: Fields) -> None:
        labels = (f["route"], f["version"])
        self._m.threshold.labels(*labels).set(1.0 if f["threshold"] is None else f["threshold"])
        self._m.coverage.labels(*labels).set(f["coverage"])
        self._m.risk.labels(*labels).set(f["risk"])
        self._m.risk_bound.labels(*labels).set(f["risk_bound"])

    def _on_router__traffic(self, f: Fields) -> None:
        self._m.traffic.labels(f["route"], f["version"]).set(f["fraction"])

    def _on_engine__loaded(self, f: Fields) -> None:
        self._m.load_seconds.labels(f["version"]).observe(f["seconds"])

    def _on_engine__request(self, f: Fields) -> None:
        version, first, tokens = f["version"], f["ttft_seconds"], f["completion_tokens"] or 0
        self._m.engine_seconds.labels(f["operation"], version, f["outcome"]).observe(f["seconds"])
        self._m.engine_tokens.labels(version, "input").inc(f["prompt_tokens"] or 0)
        self._m.engine_tokens.labels(version, "output").inc(tokens)
        between = self._m.engine_between.labels(version)
        for gap in f["gaps"]:
            between.observe(gap)
        if f["batch"] is not None:
            self._m.engine_batch.labels(version).observe(f["batch"])
        if f["queue_seconds"] is not None:
            self._m.engine_queue.labels(version).observe(f["queue_seconds"])
        if first is not None:
            self._m.engine_first_token.labels(f["operation"], version).observe(first)
            if tokens > 1 and f["gaps"]:  # else the answer came as one piece
                self._m.engine_per_token.labels(f["operation"], version).observe((f["seconds"] - first) / (tokens - 1))

    def _on_engine__inside(self, f: Fields) -> None:
        for state in ("waiting", "decoding"):
            self._m.engine_inside.labels(f["version"], state).set(f[state])

    def _on_retrainer__phase(self, f: Fields) -> None:
        self._m.phase_seconds.labels(f["route"], f["phase"]).observe(f["seconds"])

    def _on_retrainer__cycle(self, f: Fields) -> None:
        self._m.cycles.labels(f["route"], f["outcome"]).inc()

    def _on_retrainer__drift(self, f: Fields) -> None:
        self._m.drift.labels(f["route"]).set(f["psi"])
        self._m.drift_bound.labels(f["route"]).set(f["bound"])
        self._m.drift_measured.labels(f["route"]).set(f["at"])


def _error(constant: str) -> str:
    """A label from a small set: of a status only its class."""
    return f"http_{constant[5]}xx" if constant.startswith("http_") else constant
