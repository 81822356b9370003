"""From one upstream's call, and what it said, to the answer as a record has it."""

from collections.abc import Mapping
from typing import Any

from collector.frames import Call
from collector.parse import Completion, spelt
from collector.record import Answer
from router import Config, Events


class Answers:
    """Knows the prices."""

    def __init__(self, config: Config, events: Events) -> None:
        self._config = config
        self._events = events

    def of(self, call: Call, said: Completion | None, worded: Mapping[str, Any], *, told: bool = False) -> Answer:
        """`worded`: what it worded itself, scrubbed; `told`: whether that is as it came, so that tokens may be kept."""
        return Answer(
            arm=call.arm,
            version=call.version,
            upstream=call.upstream,
            status=call.status,
            error=call.error,
            usage=said.usage if said else None,
            cost_usd=self._cost(call, said),
            ttft_ms=call.ttft_ms,
            total_ms=call.total_ms,
            confidence=call.confidence,
            deferred=call.deferred,
            logprobs=spelt(said) if told else (),
            **worded,
        )

    def _cost(self, call: Call, said: Completion | None) -> float | None:
        """USD; None, and an event, where the operator gave no price: an unknown price is not 0."""
        if call.upstream is None or said is None or said.usage is None:
            return None
        upstream, _, model = call.upstream.partition("/")
        prices = self._config.upstreams[upstream].prices.get(model) if upstream in self._config.upstreams else None
        if prices is None:
            self._events.emit("collector.unknown_price", upstream=call.upstream)
            return None
        used = said.usage
        return (used.prompt_tokens * prices.input + used.completion_tokens * prices.output) / 1e6
