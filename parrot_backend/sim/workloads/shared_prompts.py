"""Applications whose users share long prompts, in the paper's figures 15 to 17.

Figures 15 and 16 have a search assistant like Bing's, figure 17 has four GPTs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from parrot_backend.core.criteria import Criteria
from parrot_backend.sim.program import Arrival, Constant, Program
from parrot_backend.sim.workloads.arrivals import jobs_at
from parrot_backend.sim.workloads.building import LATENCY, prompt, single_call, text
from parrot_backend.sim.workloads.checks import at_least
from parrot_backend.sim.workloads.tables import copilot, four_gpts

#: Tokens that all prompts of the copilot begin with, as measured in the artifact's workload.
COPILOT_SHARED_TOKENS = 5107


def copilot_jobs(
    times_s: Iterable[float],
    output_tokens: int | None = None,
    criteria: Criteria = LATENCY,
    run: str = "",
) -> Iterator[Arrival]:
    """Return requests of a search assistant, in the order of the artifact's 64, again and again.

    Args:
        times_s: When; figure 15 sends 64 at once.
        output_tokens: Length of each output, for figure 16; None for the recorded ones.
        criteria: What each user asks for.
        run: Sets the texts of one run apart from another's.

    Raises:
        WorkloadError: Outputs are to be shorter than one token.
    """
    if output_tokens is not None:
        at_least("output_tokens", output_tokens, 1)
    requests = copilot()
    system = Constant("copilot/system", COPILOT_SHARED_TOKENS)

    def make(number: int) -> Program:
        lengths = requests[number % len(requests)]
        own = text(f"copilot/{run}/{number}", lengths.prompt_tokens - system.tokens)
        made = lengths.output_tokens if output_tokens is None else output_tokens
        return single_call("copilot", prompt(system, own), made, criteria)

    return jobs_at(times_s, make)


def four_gpts_jobs(
    times_s: Iterable[float], rng: random.Random, criteria: Criteria = LATENCY, run: str = ""
) -> Iterator[Arrival]:
    """Return requests to four applications, each as likely as the others; an app name for each.

    Args:
        times_s: When; the paper's are Poisson.
        rng: Draws the application.
        criteria: What each user asks for.
        run: Sets the texts of one run apart from another's.
    """
    applications = four_gpts()

    def make(number: int) -> Program:
        gpt = rng.choice(applications)
        system = text(f"gpts/{gpt.application}", gpt.system_tokens)
        query = text(f"gpts/{run}/{number}", gpt.query_tokens)
        app = f"gpts/{gpt.application}"
        return single_call(app, prompt(system, query), gpt.output_tokens, criteria)

    return jobs_at(times_s, make)
