"""Sessions of a programming agent: each call goes on where the one before ended.

Lengths are those of 22 recorded SWE-agent sessions. How long tools took is not recorded: the think
times are ours, drawn from a log-normal distribution.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence

from parrot_backend.core.criteria import Criteria
from parrot_backend.sim.program import Arrival, Output, Piece, Program, ProgramCall
from parrot_backend.sim.workloads.arrivals import jobs_at
from parrot_backend.sim.workloads.building import LATENCY, prompt, text
from parrot_backend.sim.workloads.checks import positive
from parrot_backend.sim.workloads.tables import Turn, swe_agent

#: Length of SWE-agent's own system prompt (its default configuration, at 3ea751c0); all sessions
#: are taken to begin with it, and to share nothing else.
SYSTEM_TOKENS = 859


def agent_session(
    turns: Sequence[Turn],
    session: str,
    think_s: Sequence[float],
    criteria: Criteria = LATENCY,
) -> Program:
    """Return one session; only its last call is wanted.

    Args:
        turns: What came new at each call, and how much it made.
        session: Equal names are equal sessions; others share the system prompt alone.
        think_s: Time of the tools before each call but the first, which has none.
        criteria: What is asked for the end.
    """
    system_tokens = min(SYSTEM_TOKENS, turns[0].new_tokens)
    history: tuple[Piece, ...] = text("swe_agent/system", system_tokens)
    calls = list[ProgramCall]()
    for number, turn in enumerate(turns):
        new_tokens = turn.new_tokens - (0 if number else system_tokens)
        history = prompt(history, text(f"{session}/{number}", new_tokens))
        calls.append(
            ProgramCall(
                f"turn-{number}",
                history,
                turn.output_tokens,
                stage="turn",
                think_s=think_s[number - 1] if number else 0.0,
            )
        )
        history = prompt(history, Output(calls[-1].name))
    return Program("swe_agent", tuple(calls), ((calls[-1].name, criteria),))


def agent_jobs(
    times_s: Iterable[float],
    rng: random.Random,
    tool_s: float = 2.0,
    tool_sigma: float = 1.0,
    run: str = "",
) -> Iterator[Arrival]:
    """Return a session at each time, drawn from the recorded ones; all texts are its own.

    Args:
        times_s: When they begin.
        rng: Draws sessions and tool times.
        tool_s: Mean time of a tool; ours, see above.
        tool_sigma: Standard deviation of its logarithm.
        run: Sets the texts of one run apart from another's.

    Raises:
        WorkloadError: The mean is not above zero, or the deviation negative.
    """
    mu = math.log(positive("tool_s", tool_s)) - positive("tool_sigma", tool_sigma) ** 2 / 2
    sessions = swe_agent()

    def make(number: int) -> Program:
        turns = rng.choice(sessions)
        think_s = [rng.lognormvariate(mu, tool_sigma) for _ in turns[1:]]
        return agent_session(turns, f"swe_agent/{run}/{number}", think_s)

    return jobs_at(times_s, make)
