"""Which calls need no engine: their result is known, or on its way in an equal one.

A call repeats another if model, tenant, tools, sampling and the whole prompt are equal, and its
author asks for what is the same each time: temperature 0, or a seed. Calls that may call tools do
not repeat, since each call of a tool has an id of its own.

The first of equal calls runs; others follow it while it is queued or runs, and get its result when
it ends. If it fails, each runs by itself; if it is cancelled, the next of them takes its place. A
call whose text somebody may read while it is generated does not follow, nor one that is more urgent
than what is still queued. With a result cache, results outlive their calls.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b

from parrot_backend.core.config import OptimiserConfig
from parrot_backend.core.events import RequestFinished
from parrot_backend.core.fleet import Fleet
from parrot_backend.core.ids import AttemptId, NodeId
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.result_cache import ResultCache
from parrot_backend.core.variable import Variable, VariableState


@dataclass(slots=True, eq=False)
class _Runner:
    """A request that runs for itself and for those that follow it."""

    request: Request
    key: bytes
    followers: dict[NodeId, Request]


class Optimiser:
    """Lets repeatable requests wait for equal ones; all others go straight to the fleet.

    Args:
        config: What is done.
        fleet: Where requests are queued.

    Attributes:
        num_merged: Requests that got the result of one that ran at the same time.
        num_cache_hits: Requests that got the result of one that ran before.
        num_pruned: Requests that were not run because nobody can want them.
    """

    def __init__(self, config: OptimiserConfig, fleet: Fleet) -> None:
        self._config = config
        self._fleet = fleet
        self._results = ResultCache(config.result_cache_bytes)
        self._is_on = config.merges or config.result_cache_bytes > 0
        self._runners: dict[NodeId, _Runner] = {}
        self._leaders: dict[bytes, _Runner] = {}
        self._leader_of: dict[NodeId, _Runner] = {}
        self._due: deque[tuple[Request, RequestFinished]] = deque()
        self._restarts: deque[tuple[Request, bool]] = deque()
        self.num_merged = self.num_cache_hits = self.num_pruned = 0

    @property
    def num_following(self) -> int:
        """Requests that are ready and wait for an equal one."""
        return len(self._leader_of)

    def begin(self, request: Request, now_s: float) -> None:
        """Queue a request that has just become ready, or let it wait for an equal one."""
        if self._is_on and is_repeatable(request):
            self._fleet.settle_model(request)
            if self._is_answered(request):
                self._fleet.prepare(request)
                return
        self._fleet.enqueue(request, now_s)

    def reconsider(self, request: Request) -> None:
        """Take in that a request's objective has changed: nobody waits for what comes later now."""
        leader, changed = self._leader_of.get(request.id), [request]
        if leader is None:
            leader = self._runners.get(request.id)
            changed = [] if leader is None else list(leader.followers.values())
        if leader is None:
            return
        for follower in changed:
            if not _is_ahead(leader, follower):
                del leader.followers[follower.id], self._leader_of[follower.id]
                self._restarts.append((follower, False))

    def finished(self, request: Request, result: RequestFinished) -> None:
        """Take in the result of a request that ran."""
        runner = self._forget_runner(request)
        if runner is None:
            return
        # Whose it was is not remembered.
        self._results.put(runner.key, replace(result, attempt=AttemptId(""), spliced=()))
        for follower in runner.followers.values():
            del self._leader_of[follower.id]
            self.num_merged += 1
            self._due.append((follower, result))

    def failed(self, request: Request, output: Variable) -> None:
        """Take in that a request failed, or was cancelled."""
        leader = self._leader_of.pop(request.id, None)
        if leader is not None:
            del leader.followers[request.id]
        runner = self._forget_runner(request)
        if runner is not None:
            is_alone = output.state is VariableState.FAILED
            for follower in runner.followers.values():
                del self._leader_of[follower.id]
                self._restarts.append((follower, is_alone))

    def due(self, now_s: float) -> Iterator[tuple[Request, RequestFinished]]:
        """Yield requests with their results until there are none; queue those that must run."""
        while self._due or self._restarts:
            while self._restarts:
                request, is_alone = self._restarts.popleft()
                if request.has_ended:
                    continue
                request.reason = None
                if is_alone:
                    self._fleet.enqueue(request, now_s)
                else:
                    self.begin(request, now_s)
            if self._due:
                request, result = self._due.popleft()
                if not request.has_ended:
                    yield request, result

    def _is_answered(self, request: Request) -> bool:
        """Find out whether an equal request runs or ran; if not, note that this one will."""
        key = repetition_key(request)
        is_staged = self._fleet.splicing.holds(request.id)
        result = None if is_staged else self._results.get(key)
        if result is not None:
            self.num_cache_hits += 1
            request.reason = "an equal call ran before"
            self._due.append((request, result))
            return True
        leader = self._leaders.get(key)
        is_ahead = leader is not None and _is_ahead(leader, request)
        if leader is not None and request.quiet and not is_staged and is_ahead:
            leader.followers[request.id] = request
            self._leader_of[request.id] = leader
            request.reason = f"waits for the equal call {leader.request.id}"
            return True
        runner = self._runners[request.id] = _Runner(request, key, {})
        if not is_ahead and self._config.merges:  # it runs before all that lead so far
            self._leaders[key] = runner
        return False

    def _forget_runner(self, request: Request) -> _Runner | None:
        runner = self._runners.pop(request.id, None)
        if runner is not None and self._leaders.get(runner.key) is runner:
            del self._leaders[runner.key]
        return runner


def is_repeatable(request: Request) -> bool:
    """Tell whether equal requests are to have equal results."""
    sampling = request.sampling
    is_same = sampling.temperature == 0 or sampling.seed is not None
    return is_same and not request.chat.may_call


def repetition_key(request: Request) -> bytes:
    """Return a digest of all that decides a result: equal only for equal requests."""
    digest = blake2b(digest_size=32)
    fields = [request.tenant, repr(request.model), repr(request.sampling), repr(request.chat)]
    for part in request.parts:
        fields += [part.kind.value, part.text, part.head.text, repr(part.token_ids)]
    for field in fields:
        data = field.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.digest()


def _is_ahead(leader: _Runner, request: Request) -> bool:
    """Tell whether a request would hardly run before one that came before it."""
    running, new = leader.request.objective, request.objective
    if leader.request.state is NodeState.RUNNING:
        return True
    before_s = math.inf if running.deadline_s is None else running.deadline_s
    new_s = math.inf if new.deadline_s is None else new.deadline_s
    return (running.objective_class, before_s) <= (new.objective_class, new_s)
