"""What one run of a program leaves: its calls with their phases in time, and token counts.

All times are seconds since the client began the run, on the client's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How a program reaches the model."""

    CALL_BY_CALL = "call by call"
    ONE_SUBMIT = "one submit"


class PhaseKind(StrEnum):
    """What is going on for a call, or for the whole program, at a time."""

    REQUEST_TRAVELS = "request travels"
    QUEUE = "queue"
    PREFILL = "prefill"
    DECODE = "decode"
    REPLY_TRAVELS = "reply travels"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Phase:
    """A span of time in one state."""

    kind: PhaseKind
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One model call.

    Attributes:
        name: For people; the same in both modes.
        phases: In order of time.
        needs: Names of the calls whose outputs its prompt holds.
        engine_s: vLLM's own time for the call, from its queue to the last token.
        cached_tokens: Prompt tokens whose keys and values were in the cache.
    """

    name: str
    phases: tuple[Phase, ...]
    needs: tuple[str, ...]
    engine_s: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of one program in one mode.

    Attributes:
        mode: One of ``Mode`` in the demonstration; examples have ways of their own.
        e2e_s: From the start of the program until it had its values.
        round_trips: HTTP requests the program made until then.
        calls: Its model calls, in the order of the program.
        text: The last value that the program returned.
        network: Phases of the run that belong to no single call.
        timeline: The server's own trace of the run; None call by call.
    """

    mode: str
    e2e_s: float
    round_trips: int
    calls: tuple[CallRecord, ...]
    text: str
    network: tuple[Phase, ...] = ()
    timeline: object = None

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that the engine computed."""
        return sum(call.prompt_tokens - call.cached_tokens for call in self.calls)

    @property
    def reused_tokens(self) -> int:
        """Prompt tokens that came from the prefix cache."""
        return sum(call.cached_tokens for call in self.calls)

    @property
    def completion_tokens(self) -> int:
        """Tokens that the engine generated."""
        return sum(call.completion_tokens for call in self.calls)
