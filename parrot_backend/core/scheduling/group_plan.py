"""Task groups over engines: each member where it adds least, once its mates before it are placed.

What counts for a group is when the last of its members has ended. So a member costs what it makes
the group end later, and what it takes from others. Where mates are, their common prefix is, and is
not computed again; but their prompts are computed first, and their decodes lengthen each step. When
that costs more than computing the prefix once more, the next engine is cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from parrot_backend.core.config import CostConfig
from parrot_backend.core.engine_load import Outlook
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import EngineId, TaskGroupId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.admission import Added, admits, is_bounded
from parrot_backend.core.scheduling.cost_terms import Work, compute_price, cost_of, work_of
from parrot_backend.core.scheduling.placement import ClusterView, Placement
from parrot_backend.core.scheduling.shortlist import shortlist

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
    holders: Mapping[EngineId, int]
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
    """A member on an engine: what it costs, and what the engine is then."""

    total: float
    end_s: float
    wait_s: float
    step_s: float
    added: Added


def place_group(
    request: Request, group: TaskGroupId, view: ClusterView, config: CostConfig
) -> list[Placement]:
    """Place the ready members of a task group, the request first, as far as there is room.

    Args:
        request: A member that has failed nowhere.
        group: Its group.
        view: What there is.
        config: Settings of the policy.
    """
    members = _members(request, group, view, config)
    first = members[0]
    engines = shortlist(
        view.free, first.holders, first.work, max(config.shortlist, len(members)), view.now_s
    )
    return _Plan(engines, view, config).place(members)


def _members(
    request: Request, group: TaskGroupId, view: ClusterView, config: CostConfig
) -> list[_Member]:
    mates = [m for m in view.queue.group_members(group) if m is not request and not m.avoided]
    # The longest first: what is short fills what is left.
    mates.sort(key=lambda mate: (-mate.need_tokens, mate.order))
    tokens_of = {boundary.hash: boundary.tokens for boundary in request.sharing}
    return [
        _Member(
            member,
            work_of(member, config, view.now_s),
            next((b.tokens for b in reversed(member.sharing) if b.hash in tokens_of), 0),
            view.prefixes.holders(member.sharing),
            is_bounded(member, view),
        )
        for member in (request, *mates[: config.max_split - 1])
    ]


class _Plan:
    """Engines in the order in which they come into question, and what is on them so far."""

    def __init__(
        self, engines: Sequence[EngineState], view: ClusterView, config: CostConfig
    ) -> None:
        self._config = config
        self._price = compute_price(view, config)
        self._trials = {
            engine.id: _Trial(
                engine, engine.outlook, max(0.0, engine.load.prefill_until_s - view.now_s)
            )
            for engine in engines
        }

    def place(self, members: list[_Member]) -> list[Placement]:
        """Return where the members go; it ends with the first one that has room nowhere."""
        unused = self._ranked(members)
        used = dict[EngineId, _Trial]()
        chosen = list[tuple[Request, _Trial]]()
        for member in members:
            near = [
                self._trials[e] for e in list(member.holders)[:_MAX_HOLDERS] if e in self._trials
            ]
            best = self._best(member, {**used, **{t.engine.id: t for t in (*unused[:1], *near)}})
            if best is None:
                best = self._best(member, self._trials)
            if best is None:
                break
            trial, step = best
            self._put(member, trial, step)
            if trial.engine.id not in used:
                used[trial.engine.id] = trial
                unused.remove(trial)
            chosen.append((member.request, trial))
        reason = f"least added cost of a task group: {len(chosen)} members on {len(used)} engines"
        ends = {t.engine.id: f"{reason}, those here done in {t.end_s:.2f} s" for t in used.values()}
        return [Placement(r, t.engine.id, ends[t.engine.id]) for r, t in chosen]

    def _ranked(self, members: list[_Member]) -> list[_Trial]:
        """Return the trials, the cheapest for the first member first."""
        first = members[0]
        costs = {t.engine.id: self._step(first, t).total for t in self._trials.values()}
        ranked = sorted(self._trials.values(), key=lambda t: (costs[t.engine.id], t.engine.order))
        if self._config.splits_groups:
            return ranked
        whole = [trial for trial in ranked if self._takes_all(trial, members)]
        if whole:
            self._trials = {whole[0].engine.id: whole[0]}
        return whole[:1] or ranked

    def _takes_all(self, trial: _Trial, members: list[_Member]) -> bool:
        tokens = sum(
            trial.engine.added_tokens(m.request, m.holders.get(trial.engine.id, 0)) for m in members
        )
        common = min(member.common_tokens for member in members)
        tokens -= common * (len(members) - 1)
        return trial.engine.fits(tokens, len(members))

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
        resident = holders.get(engine.id, 0)
        mates_tokens = min(common_tokens, trial.common_tokens)
        tokens = engine.added_tokens(request, resident)
        tokens = min(tokens, max(0, request.need_tokens - mates_tokens))
        cached = max(resident, mates_tokens)
        cost = cost_of(work, trial.outlook, trial.wait_s, cached, self._price, self._config.miss_s)
        later_s = cost.prefill_s + work.output_tokens * cost.longer_s
        end_s = max(cost.own_s, trial.end_s + later_s if added.requests else 0.0)
        return _Step(
            cost.total + work.weight * (end_s - cost.own_s),
            end_s,
            trial.wait_s + cost.prefill_s,
            trial.outlook.step_s + cost.longer_s,
            Added(
                added.requests + 1,
                added.tokens + tokens,
                added.context_tokens + work.context_tokens,
            ),
        )

    def _admits(self, member: _Member, trial: _Trial, added: Added) -> bool:
        return admits(
            trial.engine,
            added,
            member.work.context_tokens,
            member.request.objective.objective_class,
            self._config.latency_tpot_s,
            is_bounded=member.is_bounded,
        )

    def _put(self, member: _Member, trial: _Trial, step: _Step) -> None:
        trial.added, trial.end_s, trial.wait_s = step.added, step.end_s, step.wait_s
        trial.outlook = trial.outlook._replace(step_s=step.step_s)
        trial.common_tokens = max(trial.common_tokens, member.common_tokens)
