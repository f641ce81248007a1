"""What a simulation tells of each call and job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call that has ended. Times are on the simulated clock, in seconds.

    Attributes:
        job: Number of its job, in order of arrival.
        app: The job's application.
        call: Its name in the program.
        engine: Position of the engine that ran the last attempt; -1 for none.
        ready_s: When the server had all it needed for it.
        placed_s: When it went to an engine.
        first_token_s: When its first token was there.
        finished_s: When its last token was there.
        prompt_tokens: Length of its prompt.
        cached_tokens: The part of it that the engine had not to compute.
        computed_tokens: Prompt tokens that were computed, those after preemptions too.
        output_tokens: What it made.
        attempts: How often it was started.
        reason: Why that engine, as the coordinator says; "" if reasons are not kept.
    """

    job: int
    app: str
    call: str
    engine: int
    ready_s: float
    placed_s: float
    first_token_s: float
    finished_s: float
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    output_tokens: int
    attempts: int = 1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job that has ended.

    Attributes:
        job: Its number, in order of arrival.
        app: Its application.
        tenant: Whose it is.
        arrived_s: When its client began.
        finished_s: When its client had the last wanted output.
        num_calls: Calls of the program.
        output_tokens: Of all its calls.
        failed: Why it did not get what it wanted; "" if it did.
    """

    job: int
    app: str
    tenant: str
    arrived_s: float
    finished_s: float
    num_calls: int
    output_tokens: int
    failed: str = ""


class RecordSink:
    """Takes records as they come; this one drops them, others keep or sum up."""

    def call(self, record: CallRecord) -> None:
        """Take in a call that has ended."""

    def job(self, record: JobRecord) -> None:
        """Take in a job that has ended."""
