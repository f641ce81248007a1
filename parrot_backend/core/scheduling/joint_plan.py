"""Several requests over engines: each where it adds least, once those before it are placed.

Where others of them are, their common prefix is, and is not computed again; but their prompts are
computed first, and their decodes lengthen each step. When that costs more than computing the prefix
once more, the next engine is cheaper. Of a task group counts when the last of its members has
ended: one costs what it makes the group end later, and what it takes from others. Requests that
only share a prefix are waited for one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice, tee
from typing import NamedTuple

from parrot_backend.core.config import CostConfig
from parrot_backend.core.engine_load import Outlook
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.admission import Added, admits, is_bounded
from parrot_backend.core.scheduling.cost_terms import Work, compute_price, cost_of, work_of
from parrot_backend.core.scheduling.holders import Holders
from parrot_backend.core.scheduling.placement import ClusterView, Placement

#: A member looks at so many of the engines that hold most of its own prompt.
_MAX_HOLDERS = 2


class _Member(NamedTuple):
    """One member of the group.

    Attributes:
        common_tokens: Length of the prefix that it has in common with the first member.
        holders: Which engines hold how much of its prompt.
    """

    request: Request
    work: Work
    common_tokens: int
    holders: Holders
    is_bounded: bool


@dataclass(slots=True)
class _Trial:
    """One engine with the members that were put there so far.

    Attributes:
        outlook: What the next member meets there.
        wait_s: Until the prompts before it are computed.
        added: What the members add to the engine.
        end_s: When the last of them has ended.
        common_tokens: The longest prefix that one of them has in common with the first member.
    """

    engine: EngineState
    outlook: Outlook
    wait_s: float
    added: Added = field(default_factory=Added)
    end_s: float = 0.0
    common_tokens: int = 0


class _Step(NamedTuple):
    """A member on an engine: what it costs, and what the engine is then.

    ``beside``: the part of ``total`` that it takes from others.
    """

    total: float
    beside: float
    end_s: float
    wait_s: float
    step_s: float
    added: Added


def place_jointly(
    requests: Sequence[Request],
    view: ClusterView,
    config: CostConfig,
    what: str,
    among: Mapping[EngineId, EngineState],
) -> list[Placement]:
    """Place requests, the first of them first, as far as there is room.

    Args:
        requests: They have failed nowhere.
        view: What there is.
        config: Settings of the policy.
        what: They are, for people. Of members of one task group their common end counts.
        among: The engines that are looked at; the first one has room on some.
    """
    first, *mates = requests
    # The longest first: what is short fills what is left.
    mates.sort(key=lambda mate: (-mate.prompt_tokens, mate.order))
    keys = {boundary.hash for boundary in first.sharing}
    # Made one by one, since it may end with the first.
    members: Iterator[_Member] = (_member(each, keys, view, config) for each in (first, *mates))
    looks_twice = first.objective.group is not None and _differ(among.values())
    if looks_twice:
        members, again = tee(members)
    plan = _Plan(view, config, among, requests)
    chosen = plan.place(members)
    if looks_twice:
        other = _Plan(view, config, among, requests, evens_out=False)
        instead = other.place(islice(again, len(chosen)))
        if len(instead) == len(chosen) and other.total < plan.total:
            chosen = instead
    num_engines = len({trial.engine.id for _, trial in chosen})
    reason = f"least added cost of {len(chosen)} {what} on {num_engines} engines, those here done"
    return [
        Placement(request, trial.engine.id, f"{reason} in {trial.end_s:.2f} s")
        for request, trial in chosen
    ]


def _member(request: Request, keys: Set[bytes], view: ClusterView, config: CostConfig) -> _Member:
    chain = request.sharing
    return _Member(
        request,
        work_of(request, config, view.now_s),
        next((boundary.tokens for boundary in reversed(chain) if boundary.hash in keys), 0),
        Holders(view.prefixes, chain),
        is_bounded(request, view),
    )


def _differ(engines: Iterable[EngineState]) -> bool:
    """Tell whether it matters to others on which engines a task group is."""
    return len({engine.outlook.weight for engine in engines}) > 1


class _Plan:
    """Engines in the order in which they come into question, and what is on them so far.

    Of a task group there are two ways to look at the end of a member. Where it ends earliest, each
    for itself: that opens another engine in time, but takes from others on all engines alike. Or by
    how much later the whole group ends: that stays away from others as long as the group gains
    nothing there, but never computes a prefix once more for the sake of those who are to come.
    """

    def __init__(
        self,
        view: ClusterView,
        config: CostConfig,
        among: Mapping[EngineId, EngineState],
        requests: Sequence[Request],
        *,
        evens_out: bool = True,
    ) -> None:
        self._evens_out = evens_out
        self._weight = self._beside = 0.0
        self._view = view
        self._config = config
        self._requests = requests
        self._is_group = requests[0].objective.group is not None
        #: When the last of those that are placed has ended, wherever it is.
        self._end_s = 0.0
        self._price = compute_price(view, config, len(requests))
        now_s = view.now_s
        self._trials = {
            e.id: _Trial(e, e.outlook, max(0.0, e.load.prefill_until_s - now_s))
            for e in among.values()
        }

    @property
    def total(self) -> float:
        """What a task group costs in all, of the weight that one of it has."""
        return self._weight * self._end_s + self._beside

    def place(self, members: Iterable[_Member]) -> list[tuple[Request, _Trial]]:
        """Return where the members go; it ends with the first one that has room nowhere.

        Args:
            members: The requests in order.
        """
        unused = list[_Trial]()
        used = dict[EngineId, _Trial]()
        chosen = list[tuple[Request, _Trial]]()
        for member in members:
            if not chosen:
                unused = self._ranked(member)
            options = dict(used)
            for trial in unused[:1]:
                options[trial.engine.id] = trial
            for engine_id in member.holders.first(_MAX_HOLDERS):
                if engine_id in self._trials:
                    options[engine_id] = self._trials[engine_id]
            best = self._best(member, options) or self._best(member, self._trials)
            if best is None:
                break
            trial, step = best
            self._put(member, trial, step)
            self._weight = member.work.weight
            if trial.engine.id not in used:
                used[trial.engine.id] = trial
                unused.remove(trial)
            chosen.append((member.request, trial))
        return chosen

    def _ranked(self, first: _Member) -> list[_Trial]:
        """Return the engines to look at, the cheapest for the first member first."""
        costs = {t.engine.id: self._step(first, t).total for t in self._trials.values()}
        ranked = sorted(self._trials.values(), key=lambda t: (costs[t.engine.id], t.engine.order))
        if self._is_group and not self._config.splits_groups:
            return self._keep_one(ranked)
        return ranked

    def _keep_one(self, ranked: list[_Trial]) -> list[_Trial]:
        """Return the first engine that has room for all, if there is one; else all engines."""
        number = len(self._requests)
        for trial in ranked:
            if trial.engine.fits(self._view.need_tokens(trial.engine, self._requests), number):
                self._trials = {trial.engine.id: trial}
                return [trial]
        return ranked

    def _best(
        self, member: _Member, trials: Mapping[EngineId, _Trial]
    ) -> tuple[_Trial, _Step] | None:
        best: tuple[_Trial, _Step] | None = None
        least = (0.0, 0)
        for trial in trials.values():
            step = self._step(member, trial)
            key = (step.total, trial.engine.order)
            if (best is None or key < least) and self._admits(member, trial, step.added):
                best, least = (trial, step), key
        return best

    def _step(self, member: _Member, trial: _Trial) -> _Step:
        request, work, common_tokens, holders, _ = member
        engine, added = trial.engine, trial.added
        resident = holders.tokens(engine.id)
        mates_tokens = min(common_tokens, trial.common_tokens)
        tokens = engine.added_tokens(request, resident)
        tokens = min(tokens, max(0, request.need_tokens - mates_tokens))
        cached = max(resident, mates_tokens)
        read = engine.read_tokens(request, work.context_tokens, mates_tokens)
        price, miss_s = self._price, self._config.miss_s
        cost = cost_of(work, trial.outlook, trial.wait_s, cached, read, price, miss_s)
        later_s = cost.prefill_s + work.output_tokens * cost.longer_s
        end_s = max(cost.own_s, trial.end_s + later_s if added.requests else 0.0)
        beside = cost.total - work.weight * cost.own_s
        if not self._is_group:
            counted_s = cost.own_s + added.requests * later_s
        elif self._evens_out:
            counted_s = end_s
        else:
            counted_s = max(0.0, end_s - self._end_s)
        return _Step(
            beside + work.weight * counted_s,
            beside,
            end_s,
            trial.wait_s + cost.prefill_s,
            trial.outlook.step_s + cost.longer_s,
            Added(
                added.requests + 1,
                added.tokens + tokens,
                added.context_tokens + read,
            ),
        )

    def _admits(self, member: _Member, trial: _Trial, added: Added) -> bool:
        objective_class = member.request.objective.objective_class
        return admits(
            trial.engine,
            added,
            member.work,
            objective_class,
            self._config,
            is_bounded=member.is_bounded,
        )

    def _put(self, member: _Member, trial: _Trial, step: _Step) -> None:
        self._end_s = max(self._end_s, step.end_s)
        self._beside += step.beside
        trial.added, trial.end_s, trial.wait_s = step.added, step.end_s, step.wait_s
        trial.outlook = trial.outlook._replace(step_s=step.step_s)
        trial.common_tokens = max(trial.common_tokens, member.common_tokens)
