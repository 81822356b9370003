"""All series that Retort exports, in one place. Names: OpenTelemetry's GenAI conventions where they have one, as
Prometheus writes them (dots as underscores, the unit at the end); `retort_*` else.

Labels come from the configuration, from version ids and from fixed sets, never from a client.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Buckets that the GenAI conventions ask for, in seconds.
_DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BATCH = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0)
_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_SCRUB = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_PHASE = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_SHARE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0)


class Metrics:
    """The series, in one registry. Gauges have one writer at a time (collector or promoter), so over several
    processes the newest value counts, and none of a process that the supervisor saw end. Only a version's stage stays
    what it was: its writer tells it once, and the version is in that stage whoever died."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gateway()
        self._collector()
        self._router()
        self._engine()
        self._retrainer()

    def _gateway(self) -> None:
        self.requests = self._counter(
            "retort_gateway_requests",
            "Requests from clients. status: a class such as 2xx",
            ("route", "arm", "version", "status", "stream", "outcome"),
        )
        self.request_seconds = self._histogram(
            "gen_ai_client_operation_duration_seconds",
            "From a request's arrival to the end of its answer, fallbacks included",
            ("gen_ai_operation_name", "route", "arm", "stream"),
            _DURATION,
        )
        self.first_chunk_seconds = self._histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "From a request's arrival to its stream's first chunk, fallbacks included",
            ("gen_ai_operation_name", "route", "arm"),
            _FIRST_TOKEN,
        )
        self.fallbacks = self._counter(
            "retort_gateway_fallbacks",
            "Calls that failed before the first byte; another was tried",
            ("route", "arm", "error"),
        )
        self.deferred = self._counter(
            "retort_gateway_deferred", "Answers of a student that it was not sure enough of", ("route", "version")
        )
        self.feedback = self._counter("retort_gateway_feedback", "Reports of clients: accepted, refused", ("outcome",))
        self.hard_stops = self._counter(
            "retort_gateway_hard_stops", "Versions that a worker held out at once", ("route", "version")
        )
        self.shadows = self._counter(
            "retort_gateway_shadows", "Shadow calls; outcome dropped: there was no room", ("route", "arm", "outcome")
        )
        self.masked = self._counter(
            "retort_gateway_masked", "Requests masked for a teacher; outcome ok, or why not", ("route", "outcome")
        )
        self.mask_seconds = self._histogram(
            "retort_gateway_mask_seconds", "Masking one request, the way there and back included", ("route",), _SCRUB
        )
        self.capture_skipped = self._counter(
            "retort_gateway_capture_skipped", "Exchanges reported without their texts", ("route", "reason")
        )

    def _collector(self) -> None:
        self.frames_dropped = self._counter("retort_collector_frames_dropped", "Frames that a full buffer refused", ())
        self.capture_shed = self._counter(
            "retort_collector_capture_shed",
            "Exchanges whose texts were not kept: more came than can be scrubbed",
            ("route",),
        )
        self.spool_refused = self._counter(
            "retort_collector_spool_refused", "Frames that a full or failing spool did not take", ()
        )
        self.spool_damaged = self._counter(
            "retort_collector_spool_damaged", "Parts of the spool that can't be read, and are kept", ()
        )
        self.exchanges = self._counter("retort_collector_exchanges", "Exchanges received", ("route",))
        self.imported = self._counter("retort_collector_imported", "Exchanges of other systems' logs", ("route",))
        self.quarantined = self._counter(
            "retort_collector_quarantined", "Records kept without their text", ("route", "reason")
        )
        self.scrubbed = self._counter("retort_collector_scrubbed", "Entities replaced by surrogates", ("entity",))
        self.language_unread = self._counter(
            "retort_collector_language_unread", "Texts that only the patterns read, for their language", ("route",)
        )
        self.memorised = self._counter(
            "retort_student_personal_data",
            "Personal data in a student's answer that didn't stand in its request",
            ("route", "version", "entity"),
        )
        self.scrub_seconds = self._histogram("retort_collector_scrub_seconds", "Scrubbing one record", (), _SCRUB)
        self.pair_score = self._histogram(
            "retort_collector_pair_score", "Scores of student against reference", ("route", "version"), _SHARE
        )
        self.pairs_lost = self._counter(
            "retort_collector_pairs_lost", "Pairs without a score: no verdict, no room, no label", ("route", "reason")
        )
        self.reports = self._counter(
            "retort_collector_feedback", "Outcomes and right answers reported", ("route", "kind", "result")
        )
        self.exposures_dropped = self._counter(
            "retort_collector_exposures_dropped", "Conversations whose outcome is not followed: too many", ("route",)
        )
        self.lag = self._gauge(
            "retort_log_lag_offsets",
            "Offsets from where a reader of the log is to the log's end, gaps included; 0: it has read all",
            ("reader", "route"),
        )
        self.backlog = self._gauge("retort_collector_backlog_bytes", "Bytes received and not yet in the log", ())
        self.log_failed = self._counter("retort_collector_log_failed", "Appends that failed, tried again", ())
        self.log_full = self._counter("retort_collector_log_full", "Appends that a full disk refused, tried again", ())
        self.subjects_failed = self._counter(
            "retort_collector_subjects_failed", "Uses of the subjects' database that failed, tried again", ()
        )

    def _router(self) -> None:
        self.stage_changes = self._counter(
            "retort_router_stage_changes", "Moves of versions", ("route", "before", "after", "cause")
        )
        self.stage = Gauge(
            "retort_router_stage",
            "1 for the stage that a version is in, 0 for those it left",
            ("route", "version", "stage"),
            registry=self._registry,
            multiprocess_mode="mostrecent",
        )
        self.evidence = self._gauge("retort_router_evidence", "A running test's value", ("route", "version", "test"))
        self.boundary = self._gauge(
            "retort_router_evidence_boundary", "Where the test decides", ("route", "version", "test")
        )
        selective = ("route", "version")
        self.threshold = self._gauge(
            "retort_router_threshold", "Confidence under which answers are deferred; 1: none is served yet", selective
        )
        self.coverage = self._gauge("retort_router_coverage", "Share of requests at or above the threshold", selective)
        self.risk = self._gauge("retort_router_risk", "Mean loss of answers at or above the threshold", selective)
        self.risk_bound = self._gauge("retort_router_risk_bound", "Certified upper bound of that loss", selective)
        self.traffic = self._gauge(
            "retort_router_traffic_fraction", "A version's share of eligible traffic", ("route", "version")
        )

    def _engine(self) -> None:
        self.load_seconds = self._histogram(
            "retort_engine_load_seconds", "From a load's begin to the first proven generation", ("version",), _PHASE
        )
        self.engine_seconds = self._histogram(
            "gen_ai_server_request_duration_seconds",
            "From a request's arrival at the engine to its last token",
            ("gen_ai_operation_name", "gen_ai_response_model", "outcome"),
            _DURATION,
        )
        self.engine_first_token = self._histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From a request's arrival at the engine to its first token",
            ("gen_ai_operation_name", "gen_ai_response_model"),
            _FIRST_TOKEN,
        )
        self.engine_per_token = self._histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time between tokens, the first one left out",
            ("gen_ai_operation_name", "gen_ai_response_model"),
            _PER_TOKEN,
        )
        self.engine_between = self._histogram(
            "retort_engine_inter_token_seconds",
            "Between two pieces of an answer, of a token or more each",
            ("version",),
            _BETWEEN,
        )
        self.engine_batch = self._histogram(
            "retort_engine_batch_requests", "How many shared an answer's passes, on average", ("version",), _BATCH
        )
        self.engine_inside = self._gauge(
            "retort_engine_requests", "Requests inside; state: waiting, decoding", ("version", "state")
        )
        self.engine_queue = self._histogram(
            "retort_engine_queue_seconds", "Waiting for a place", ("version",), _FIRST_TOKEN
        )
        self.engine_tokens = self._counter("retort_engine_tokens", "Tokens", ("version", "gen_ai_token_type"))

    def _retrainer(self) -> None:
        self.phase_seconds = self._histogram(
            "retort_retrainer_phase_seconds", "A training cycle's phases", ("route", "phase"), _PHASE
        )
        self.cycles = self._counter("retort_retrainer_cycles", "Training cycles that ended", ("route", "outcome"))
        self.drift = self._gauge(
            "retort_retrainer_drift", "PSI of the last window of inputs against the last data set's", ("route",)
        )
        self.drift_bound = self._gauge(
            "retort_retrainer_drift_bound",
            "PSI above which the inputs have shifted: the policy's threshold, or what chance reaches if that is more",
            ("route",),
        )
        self.drift_measured = self._gauge(
            "retort_retrainer_drift_measured_timestamp_seconds",
            "When the drift was last measured, in Unix time",
            ("route",),
        )

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode="livemostrecent")

    def _histogram(self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, labels, registry=self._registry, buckets=buckets)
