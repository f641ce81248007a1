"""Prometheus adapter: counts what ends, reads the present state at each scrape.

Names follow vLLM's where the meaning is the same, with the prefix ``parrot_``, in base units.
Times of a request count from when its inputs were there (``ready_s``): before that it waits for
other calls, not for an engine. One object has one registry; there are no globals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from parrot_backend.core.account import CallEnd, Ending
from parrot_backend.core.discovery.found import Found

CONTENT_TYPE = CONTENT_TYPE_LATEST

_LATENCY_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0),
)
_DECISION_BUCKETS_S = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True, slots=True)
class EngineGauges:
    """Load of one live engine: requests inside it, KV use in [0, 1], and what the plug-in did.

    Attributes:
        step_s: What the engine's model of step times says of one decoding request with a context
            of 1,000 tokens; None if there is no model yet.
        attention_steps: Steps that computed attention; None, as the next three, if it does not
            tell.
        attention_shared_steps: Those of them in which requests shared reads of KV.
        attention_kv_tokens: Tokens of KV that each layer would have read without sharing.
        attention_kv_tokens_read: Those that it read.
    """

    running: int
    waiting: int
    kv_usage: float
    pinned_tokens: int = 0
    pinned_hit_tokens: int = 0
    lost_pins: int = 0
    preempted: int = 0
    step_s: float | None = None
    attention_steps: int | None = None
    attention_shared_steps: int | None = None
    attention_kv_tokens: int | None = None
    attention_kv_tokens_read: int | None = None


@dataclass(frozen=True, slots=True)
class ServerGauges:
    """State of the server at one moment.

    Attributes:
        begun: All requests so far.
        running: Requests on engines.
        waiting: Ready requests that no engine has taken yet.
        unfinished: All requests that have not ended, those that wait for inputs included.
        sessions: Live sessions.
        waiters: Values that clients wait for.
        merged: Requests so far that got the result of an equal one that ran at the same time.
        cache_hits: Requests so far that got the result of an equal one that ran before.
        pruned: Requests so far that were not run because nobody can want them.
        is_up: For each engine slot, whether it serves.
        engines: Load of each live engine.
    """

    begun: int
    running: int
    waiting: int
    unfinished: int
    sessions: int
    waiters: int
    merged: int
    cache_hits: int
    pruned: int
    is_up: Mapping[str, bool]
    engines: Mapping[str, EngineGauges]


class PrometheusMetrics:
    """All metrics of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._submits = self._counter("submits", "Graphs accepted")
        self._errors = self._counter("errors", "Error replies by code", ["code"])
        self._ended = self._counter(
            "calls_ended", "Requests that ended, by how: each in one way", ["result"]
        )
        for how in CallEnd:
            self._ended.labels(how.value)
        self._success = self._counter(
            "request_success", "Requests that an engine finished, by reason", ["finished_reason"]
        )
        self._failures = self._counter(
            "request_failure", "Requests that failed on engines, by code", ["code"]
        )
        self._aborted = self._counter("request_aborted", "Attempts stopped as not needed")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of finished requests")
        self._generation = self._counter("generation_tokens", "Generated tokens")
        self._queries = self._counter(
            "prefix_cache_queries", "Prompt tokens looked up in KV caches"
        )
        self._hits = self._counter("prefix_cache_hits", "Prompt tokens found in KV caches")
        self._found_edges = self._counter(
            "discovered_edges", "Reads of other calls' values that were found in texts"
        )
        self._found_chars = self._counter(
            "discovery_prompt_chars",
            "Characters of prompts by what they were found to be",
            ["source"],
        )
        by_objective = ["objective"]
        self._queue_time = self._histogram(
            "request_queue_time_seconds", "From ready to placed on an engine", by_objective
        )
        self._ttft = self._histogram(
            "time_to_first_token_seconds", "From ready to the first token", by_objective
        )
        self._e2e = self._histogram(
            "e2e_request_latency_seconds", "From ready to the last token", by_objective
        )
        self._decision = Histogram(
            "parrot_scheduling_decision_seconds",
            "Time the core takes for one event, placement included",
            buckets=_DECISION_BUCKETS_S,
            registry=self._registry,
        )

        self._discovery = Histogram(
            "parrot_discovery_submit_seconds",
            "Time the core takes for a submit whose structure is found in its texts",
            buckets=_DECISION_BUCKETS_S,
            registry=self._registry,
        )

    def watch(self, read: Callable[[], ServerGauges]) -> None:
        """Read the server's state through ``read`` at each scrape."""
        self._registry.register(_GaugeCollector(read))

    def render(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self._registry)

    def count_submit(self) -> None:
        """Count an accepted graph."""
        self._submits.inc()

    def count_error(self, code: str) -> None:
        """Count an error reply."""
        self._errors.labels(code).inc()

    def count_aborted(self) -> None:
        """Count an attempt that was stopped."""
        self._aborted.inc()

    def observe_decision(self, elapsed_s: float) -> None:
        """Count the time of one decision of the core."""
        self._decision.observe(elapsed_s)

    def observe_discovery(self, elapsed_s: float) -> None:
        """Count the time of a submit whose structure was looked for."""
        self._discovery.observe(elapsed_s)

    def _observe_found(self, found: Found) -> None:
        self._found_edges.inc(len(found.reads))
        self._found_chars.labels("value").inc(found.value_chars)
        self._found_chars.labels("repeated").inc(found.repeated_chars)
        self._found_chars.labels("fresh").inc(found.fresh_chars)

    def observe_end(self, ending: Ending) -> None:
        """Count a request that has ended; its times and tokens only if an engine finished it."""
        request, output = ending.request, ending.output
        self._ended.labels(ending.how.value).inc()
        is_made = output.failure is None
        has_failed = ending.how is CallEnd.FAILED and request.attempts > 0
        if request.found is not None and (is_made or has_failed):
            self._observe_found(request.found)
        if output.failure is not None and has_failed:
            self._failures.labels(output.failure.code).inc()
        if ending.how is not CallEnd.FINISHED:
            return
        self._success.labels(output.finish_reason or "unknown").inc()
        if request.usage is not None:
            self._prompt.inc(request.usage.prompt_tokens)
            self._queries.inc(request.usage.prompt_tokens)
            self._hits.inc(request.usage.cached_tokens)
            self._generation.inc(request.usage.completion_tokens)
        objective = request.objective.objective_class.name.lower()
        for histogram, end_s in (
            (self._queue_time, request.placed_s),
            (self._ttft, request.first_token_s),
            (self._e2e, request.finished_s),
        ):
            if request.ready_s is not None and end_s is not None:
                histogram.labels(objective).observe(end_s - request.ready_s)

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"parrot_{name}", text, labels or [], registry=self._registry)

    def _histogram(self, name: str, text: str, labels: list[str]) -> Histogram:
        return Histogram(
            f"parrot_{name}", text, labels, buckets=_LATENCY_BUCKETS_S, registry=self._registry
        )


class _GaugeCollector(Collector):
    """Turns the server's state into gauges."""

    def __init__(self, read: Callable[[], ServerGauges]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        # Without this the registry would scrape once at registration to learn the names.
        return []

    def collect(self) -> Iterator[Metric]:
        state = self._read()
        yield _total("calls", "Requests taken in; what did not end is unfinished", state.begun)
        yield _gauge("num_requests_running", "Requests on engines", state.running)
        yield _gauge("num_requests_waiting", "Ready requests without an engine", state.waiting)
        yield _gauge("num_calls_unfinished", "Requests that have not ended", state.unfinished)
        yield _gauge("sessions", "Live sessions", state.sessions)
        yield _gauge("waiters", "Values that clients wait for", state.waiters)
        yield _total("merged_calls", "Requests that followed an equal one", state.merged)
        yield _total("result_cache_hits", "Requests answered by the cache", state.cache_hits)
        yield _total("pruned_calls", "Requests that nobody could want", state.pruned)
        up = GaugeMetricFamily("parrot_engine_up", "1 when the engine serves", labels=["engine"])
        for slot, is_up in state.is_up.items():
            up.add_metric([slot], float(is_up))
        yield up
        yield from _engine_gauges(state.engines)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"parrot_{name}", text, value=value)


def _total(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"parrot_{name}", text, value=value)


def _engine_gauges(engines: Mapping[str, EngineGauges]) -> Iterator[Metric]:
    label = ["engine"]
    gauges: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
        "running": GaugeMetricFamily(
            "parrot_engine_requests_running", "In the engine's batch", labels=label
        ),
        "waiting": GaugeMetricFamily(
            "parrot_engine_requests_waiting", "In its own queue", labels=label
        ),
        "kv_usage": GaugeMetricFamily(
            "parrot_kv_cache_usage_perc", "KV in use, 1 is full", labels=label
        ),
        "pinned_tokens": GaugeMetricFamily(
            "parrot_kv_pinned_tokens", "KV kept for requests to come", labels=label
        ),
        "step_s": GaugeMetricFamily(
            "parrot_engine_step_seconds", "Predicted: one request, context 1,000", labels=label
        ),
        "pinned_hit_tokens": CounterMetricFamily(
            "parrot_kv_pinned_hit_tokens", "Prompt tokens found in kept KV", labels=label
        ),
        "lost_pins": CounterMetricFamily(
            "parrot_kv_lost_pins", "Prefixes not kept as wished", labels=label
        ),
        "preempted": CounterMetricFamily(
            "parrot_engine_preempted", "Requests that gave way to latency work", labels=label
        ),
        "attention_steps": CounterMetricFamily(
            "parrot_attention_steps", "Steps that computed attention", labels=label
        ),
        "attention_shared_steps": CounterMetricFamily(
            "parrot_attention_shared_steps", "Steps whose requests shared reads", labels=label
        ),
        "attention_kv_tokens": CounterMetricFamily(
            "parrot_attention_kv_tokens", "KV a layer would read unshared", labels=label
        ),
        "attention_kv_tokens_read": CounterMetricFamily(
            "parrot_attention_kv_tokens_read", "KV a layer read", labels=label
        ),
    }
    for engine, load in engines.items():
        for name, gauge in gauges.items():
            value = getattr(load, name)
            if value is not None:
                gauge.add_metric([engine], value)
    yield from gauges.values()
