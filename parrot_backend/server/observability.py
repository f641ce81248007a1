"""Logs and metrics of what the runtime does.

Handlers are set up here and nowhere else. Every line names the ids it is about; prompts and values
are never logged. Each call that an engine ran gives one INFO line when it ends; those that got the
result of an equal one are counted by the optimiser alone.
"""

from __future__ import annotations

import logging
import logging.config

from parrot_backend.core.call_overhead import CallOverheads
from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.variable import Variable
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

    def request_ended(self, request: Request, output: Variable) -> None:
        """Count and log a request that finished or failed for good."""
        self._metrics.observe_request(request, output)
        self._note_overhead(request)
        if not logger.isEnabledFor(logging.INFO):
            return
        usage = request.usage
        logger.info(
            "call=%s %s(%s) engine=%s attempts=%d objective=%s prompt_tokens=%s cached_tokens=%s "
            "completion_tokens=%s queue_s=%s ttft_s=%s e2e_s=%s",
            request.id,
            request.state.value,
            output.finish_reason if output.failure is None else output.failure.code,
            request.engine,
            request.attempts,
            request.objective.objective_class.name.lower(),
            usage and usage.prompt_tokens,
            usage and usage.cached_tokens,
            usage and usage.completion_tokens,
            _between(request.ready_s, request.placed_s),
            _between(request.ready_s, request.first_token_s),
            _between(request.ready_s, request.finished_s),
        )

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


def _between(begin_s: float | None, end_s: float | None) -> str:
    return "-" if begin_s is None or end_s is None else f"{end_s - begin_s:.4f}"
