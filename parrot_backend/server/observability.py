"""Logs and metrics of what the runtime does.

Handlers are set up here and nowhere else. Every line names the ids it is about; prompts and values
are never logged. Each call gives one line when it ends: at INFO if an engine ran it, or it got the
result of an equal one; at DEBUG if it never ran (cancelled, pruned, failed for its inputs).
"""

from __future__ import annotations

import logging
import logging.config

from parrot_backend.core.account import CallEnd, Ending
from parrot_backend.core.call_overhead import CallOverheads
from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.metrics.prometheus import PrometheusMetrics

logger = logging.getLogger(__name__)


def configure_logging(level: str) -> None:
    """Send the log to standard error; libraries speak from WARNING on."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {
                    "format": "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s",
                    "datefmt": "%H:%M:%S",
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {"parrot_backend": {"level": level.upper()}},
        }
    )


class CallObserver:
    """Counts and logs the end of each call; the runtime's observer.

    Attributes:
        overheads: What calls take beside their engine's time.
    """

    def __init__(self, metrics: PrometheusMetrics) -> None:
        self._metrics = metrics
        self.overheads = CallOverheads()

    def decided(self, elapsed_s: float) -> None:
        """Count the time of one decision."""
        self._metrics.observe_decision(elapsed_s)
        self.overheads.decided()

    def discovered(self, elapsed_s: float) -> None:
        """Count the time of a submit whose structure was looked for."""
        self._metrics.observe_discovery(elapsed_s)

    def request_started(self, attempt: AttemptId) -> None:
        """Note that an attempt is on its way."""
        self.overheads.started(attempt)

    def request_ended(self, ending: Ending) -> None:
        """Count and log a request that has ended."""
        self._metrics.observe_end(ending)
        self._note_overhead(ending.request)
        is_reused = ending.how in (CallEnd.MERGED, CallEnd.CACHED)
        level = logging.INFO if is_reused or ending.request.attempts else logging.DEBUG
        if logger.isEnabledFor(level):
            logger.log(level, "%s", _reused(ending) if is_reused else _ran(ending))

    def _note_overhead(self, request: Request) -> None:
        attempt, engine, usage = request.attempt, request.engine, request.usage
        placed_s, ended_s = request.placed_s, request.finished_s
        if attempt is None or engine is None or usage is None:
            return  # it failed
        if placed_s is not None and ended_s is not None:
            self.overheads.ended(engine, attempt, ended_s - placed_s, usage.engine_s)

    def request_aborted(self, attempt: AttemptId, engine: EngineId) -> None:
        """Count and log an attempt that was stopped."""
        self._metrics.count_aborted()
        logger.info("attempt=%s aborted engine=%s", attempt, engine)

    def waiter_answered(self, answer: AnswerWaiter) -> None:
        """Log an answer without a value, with its root cause."""
        if answer.failure is not None:
            logger.info(
                "variable=%s %s code=%s origin=%s",
                answer.variable,
                answer.state.value,
                answer.failure.code,
                answer.failure.origin,
            )


def _ran(ending: Ending) -> str:
    """Return the line of a call that an engine ran, or that ended before one did."""
    request, usage = ending.request, ending.request.usage
    return (
        f"{_head(ending)} engine={request.engine} attempts={request.attempts} "
        f"objective={request.objective.objective_class.name.lower()} "
        f"prompt_tokens={usage and usage.prompt_tokens} "
        f"cached_tokens={usage and usage.cached_tokens} "
        f"completion_tokens={usage and usage.completion_tokens} "
        f"queue_s={_between(request.ready_s, request.placed_s)} "
        f"ttft_s={_between(request.ready_s, request.first_token_s)} "
        f"e2e_s={_between(request.ready_s, request.finished_s)}"
    )


def _reused(ending: Ending) -> str:
    """Return the line of a call that got the result of an equal one."""
    request, usage = ending.request, ending.request.usage
    source = "from=cache" if ending.equal is None else f"merged with={ending.equal}"
    return (
        f"{_head(ending)} {source} objective={request.objective.objective_class.name.lower()} "
        f"prompt_tokens={usage and usage.prompt_tokens} "
        f"completion_tokens={usage and usage.completion_tokens} "
        f"e2e_s={_between(request.ready_s, request.finished_s)}"
    )


def _head(ending: Ending) -> str:
    request, output = ending.request, ending.output
    why = output.finish_reason if output.failure is None else output.failure.code
    return f"call={request.id} {request.state.value}({why})"


def _between(begin_s: float | None, end_s: float | None) -> str:
    return "-" if begin_s is None or end_s is None else f"{end_s - begin_s:.4f}"
