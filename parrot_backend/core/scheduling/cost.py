"""Policy ``cost``: where a request adds least to the time that people wait.

What it does: for each engine that admits the request, the time until its output is there (prompts
before it, the part of its own prompt that the engine does not hold, its decodes beside the others)
and the time by which others are delayed, each second weighted by who waits for it; targets that
would be missed count heavily. The members of a task group are placed together, one after the
other where each adds least (``joint_plan.py``), so a group is spread as soon as queueing costs more
than a second prefill of what its prompts share. So are queued requests of one class with most of
their prompts in common.

Intent: shortest jobs on average, without breaking what was asked for.

Inputs: sums over what runs on each engine, its step times, resident prefixes, expected lengths of
outputs.

Limits: it looks at the present only, so what an engine will be asked for later is a fixed price for
each second of prefill. Of many engines it looks at those that hold some of the prompt and the least
loaded. Where all step times are wrong in the same way, choices are nearly the same; where engines
differ and do not say so, it is the wrong policy.
"""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.core.config import CostConfig
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.cost_terms import Cost, Work, compute_price, cost_of, work_of
from parrot_backend.core.scheduling.holders import Holders
from parrot_backend.core.scheduling.joint_plan import place_jointly
from parrot_backend.core.scheduling.placement import ClusterView, Placement
from parrot_backend.core.scheduling.shortlist import Shortlist


class CostPlacement:
    """Least added cost."""

    def __init__(self, config: CostConfig) -> None:
        self._config = config

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place the request as the module says, and perhaps others with it."""
        config = self._config
        work = work_of(request, config, view.now_s)
        holders = Holders(view.prefixes, request.sharing)
        shortlist = Shortlist(request, work, holders, view, config)
        engines = shortlist.taking()
        best = self._best(request, work, engines, holders, view)
        if best is None:
            return []  # before the others are looked for, since that is what happens most
        engine, cost = best
        if engine.free_slots > 1 or shortlist.has_several():
            mates, what = self._together(request, view)
            if len(mates) > 1:
                least = max(config.shortlist, len(mates))
                among = shortlist.any(least) | {each.id: each for each in engines}
                return place_jointly(mates, view, config, what, among)
        reason = reason_of(cost, holders.tokens(engine.id), len(engines))
        return [Placement(request, engine.id, reason)]

    def _together(self, request: Request, view: ClusterView) -> tuple[list[Request], str]:
        """Return what is placed with a request, itself first; alone, if it has failed before."""
        if request.avoided:
            return [request], ""
        group = request.objective.group
        if group is not None:
            what = f"members of task group {group}"
            found = view.queue.group_members(group) if view.queue.group_size(group) > 1 else []
        else:
            found, tokens = view.queue.sharing_prefix(request, view.max_shared)
            what = f"queued requests that share a prefix of about {tokens} tokens"
            # Who comes before its turn takes little from those it passes: most of it is computed.
            found = [r for r in found if 2 * tokens >= r.prompt_tokens and _is_like(r, request)]
        mates = [mate for mate in found if mate is not request and not mate.avoided]
        return [request, *mates[: self._config.max_together - 1]], what

    def _best(
        self,
        request: Request,
        work: Work,
        engines: Iterable[EngineState],
        holders: Holders,
        view: ClusterView,
    ) -> tuple[EngineState, Cost] | None:
        """Return the cheapest of the engines that take a request."""
        config, now_s = self._config, view.now_s
        price = compute_price(view, config)
        best: tuple[EngineState, Cost] | None = None
        least = (0.0, 0)
        for engine in engines:
            wait_s = max(0.0, engine.load.prefill_until_s - now_s)
            cached = holders.tokens(engine.id)
            read = engine.read_tokens(request, work.context_tokens)
            cost = cost_of(work, engine.outlook, wait_s, cached, read, price, config.miss_s)
            key = (cost.total, engine.order)
            if best is None or key < least:
                best, least = (engine, cost), key
        return best


def _is_like(one: Request, other: Request) -> bool:
    """Tell whether requests are bound by the same; who is not would be bound by the other."""
    ours, theirs = one.objective, other.objective
    is_bound_alike = ours.is_bounded == theirs.is_bounded
    return ours.objective_class is theirs.objective_class and is_bound_alike


def reason_of(cost: Cost, cached_tokens: int, num_engines: int) -> str:
    """Return why an engine was chosen, for people."""
    return (
        f"least added cost of {num_engines} engines: done in {cost.own_s:.2f} s (wait "
        f"{cost.wait_s:.2f}, prefill {cost.prefill_s:.2f} with about {cached_tokens} tokens held, "
        f"decode {cost.decode_s:.2f}), others {cost.others_s:.2f} s later"
    )
