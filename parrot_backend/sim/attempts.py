"""Attempts: the core's commands as requests of engines, and their ends as events. Pure."""

from __future__ import annotations

from parrot_backend.core.commands import FillPrefix, StartRequest
from parrot_backend.core.criteria import UNANNOTATED
from parrot_backend.core.events import RequestFinished, RequestUsage
from parrot_backend.sim.engine_seam import Finished, SimRequest
from parrot_backend.sim.jobs import LiveCall
from parrot_backend.sim.records import CallRecord


def attempt_request(command: StartRequest, output_tokens: int) -> SimRequest:
    """Return an attempt that begins now and will make so many tokens."""
    return SimRequest(
        command.attempt,
        command.prefixes,
        output_tokens,
        command.objective,
        command.remaining,
        command.tenant,
        command.retain,
    )


def fill_request(command: FillPrefix) -> SimRequest:
    """Return a fill of leading parts."""
    return SimRequest(
        command.attempt,
        command.prefixes,
        0,
        UNANNOTATED,
        tenant=command.tenant,
        retain=command.retain,
        is_fill=True,
    )


def finish_event(call: LiveCall, end: Finished, text: str) -> RequestFinished:
    """Return what the core hears of a call that has run to its end."""
    usage = RequestUsage(
        call.prompt_tokens,
        len(text),
        end.cached_tokens,
        end.at_s - call.placed_s,
        end.at_s - end.first_token_s,
    )
    reason = "length" if call.spec.max_tokens == len(text) else "stop"
    return RequestFinished(end.attempt, text, None, reason, usage)


def fill_end(end: Finished) -> RequestFinished:
    """Return what the core hears of a fill that has run to its end."""
    usage = RequestUsage(end.computed_tokens, 0, end.cached_tokens)
    return RequestFinished(end.attempt, "", None, "stop", usage)


def call_record(engine: int, call: LiveCall, end: Finished, tokens: int) -> CallRecord:
    """Return the record of a call that has run to its end."""
    assert call.ready_s is not None, "set when it is started"
    return CallRecord(
        job=call.job.number,
        app=call.job.program.app,
        call=call.spec.name,
        engine=engine,
        ready_s=call.ready_s,
        placed_s=call.placed_s,
        first_token_s=end.first_token_s,
        finished_s=end.at_s,
        prompt_tokens=call.prompt_tokens,
        cached_tokens=end.cached_tokens,
        computed_tokens=end.computed_tokens,
        output_tokens=tokens,
        attempts=call.attempts,
        reason=call.reason,
    )
