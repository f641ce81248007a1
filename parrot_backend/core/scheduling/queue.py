"""The queue of ready requests: in serving order, and findable by task group and by prefix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import TypeVar

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.ids import NodeId, TaskGroupId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.age_watch import AgeLimits, AgeWatch
from parrot_backend.core.scheduling.fairness import FairLineup
from parrot_backend.core.scheduling.lineup import Lineup, SortedLineup
from parrot_backend.core.scheduling.orders import (
    Ordering,
    OrderKey,
    has_classes,
    old_ordering_of,
)
from parrot_backend.core.scheduling.slack import SlackWatch

_Key = TypeVar("_Key")


class WaitingQueue:
    """Ready requests in serving order, the first one at position 0.

    What is old goes before everything else; with several tenants, before everything else of its
    tenant.

    Args:
        ordering: The order of what is not old.
        ages: What is old (``age_watch.py``).
        min_prefix_tokens: Shorter prefixes are not worth sharing.
        weights: Shares of tenants, where each is to get its share; None serves them as one.
    """

    def __init__(
        self,
        ordering: Ordering,
        ages: AgeLimits,
        min_prefix_tokens: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._ordering = ordering
        self._old_ordering = old_ordering_of(ordering)
        self._weights = weights
        self._tenant: str | None = None
        self._slack = SlackWatch()
        self._min_prefix_tokens = min_prefix_tokens
        self._lineup: Lineup = SortedLineup()
        self._keys: dict[NodeId, OrderKey] = {}
        # For ``num_alike``: others need more than anybody.
        self._bounded_need: dict[NodeId, int] = {}
        self._requests: dict[NodeId, Request] = {}
        self._ages = AgeWatch(ordering, ages)
        self._groups: dict[TaskGroupId, dict[NodeId, None]] = {}
        self._prefixes: dict[bytes, dict[NodeId, None]] = {}

    def renew(self) -> bool:
        """Begin anew, if this is empty; tell whether it is as if it had just been made."""
        self._tenant = None
        left = self._requests or self._groups or self._prefixes
        return not (left or len(self._ages)) and not self.has_shares

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, position: int) -> Request:
        return self._requests[self._lineup[position][1]]

    def key(self, position: int) -> OrderKey:
        """Return what the request at a position is ordered by."""
        return self._lineup[position][0]

    def __iter__(self) -> Iterator[Request]:
        for _, node_id in self._lineup:
            yield self._requests[node_id]

    def __contains__(self, request: Request) -> bool:
        return request.id in self._requests

    def num_alike(self, position: int, most: int, need_tokens: int) -> int:
        """Count the requests in a row that keep to the latency capacity as an earlier one does.

        Args:
            position: Where to begin.
            most: Further ones are not counted.
            need_tokens: The latency-sensitive, bounded requests that need no more are counted.
        """
        number = 0
        for _, node_id in islice(self._lineup, position, position + most):
            if self._bounded_need[node_id] > need_tokens:
                break
            number += 1
        return number

    def comes_behind(self, request: Request, key: OrderKey) -> bool:
        """Tell whether a queued request is served behind all that have at most this key.

        Where tenants share, nothing follows from keys.
        """
        return not self.has_shares and self._keys[request.id] > key

    def add(self, request: Request) -> None:
        """Put in a request that has just become ready."""
        if request.tenant != self._tenant:
            self._welcome(request.tenant)
        self._slack.note(request)
        self._requests[request.id] = request
        self._ages.add(request)
        self._insert(request, self._key(request))
        if request.objective.group is not None:
            _put(self._groups, request.objective.group, request.id)
        for boundary in request.sharing:
            if boundary.tokens >= self._min_prefix_tokens:
                _put(self._prefixes, boundary.hash, request.id)

    def remove(self, request: Request) -> None:
        """Take out a request; one that is not in the queue is a defect of ours."""
        self._extract(request)
        self._slack.forget(request)
        del self._requests[request.id], self._bounded_need[request.id]
        self._ages.remove(request)
        _discard(self._groups, request.objective.group, request.id)
        for boundary in request.sharing:
            if boundary.tokens >= self._min_prefix_tokens:
                _discard(self._prefixes, boundary.hash, request.id)

    def update(self, request: Request, change: Callable[[], None]) -> None:
        """Apply a change that affects a queued request's place, and move it accordingly."""
        _discard(self._groups, request.objective.group, request.id)
        self._extract(request)
        change()
        self._slack.note(request)
        self._ages.update(request)
        self._insert(request, self._key(request))
        if request.objective.group is not None:
            _put(self._groups, request.objective.group, request.id)

    def _key(self, request: Request) -> OrderKey:
        if not self._ages.is_old(request):
            return (1.0, *self._ordering(request))
        return (0.0, *self._old_ordering(request))

    def _welcome(self, tenant: str) -> None:
        """Line up by tenants from the second one on."""
        is_first = self._tenant is None
        self._tenant = tenant
        if self._weights is None or is_first or self.has_shares:
            return
        fair = FairLineup(self._weights, with_classes=has_classes(self._ordering))
        for key, node_id in self._lineup:
            fair.insert(key, self._requests[node_id])
        self._lineup = fair

    @property
    def has_shares(self) -> bool:
        """Tell whether several tenants share it."""
        return isinstance(self._lineup, FairLineup)

    def serve(self, request: Request, tokens: float) -> None:
        """Take in that a request, which is about to be removed, gets so much service."""
        self._lineup.serve(self._keys[request.id], request, tokens)

    def settle(self, request: Request, tokens: float | None) -> None:
        """Take in how much service a request had in the end; None if it did not come to that."""
        self._lineup.settle(request, tokens)

    def promote_old(self, now_s: float) -> bool:
        """Move what has become old to the front, or back, and what is pressed by its deadline.

        Returns:
            Whether there was any.
        """
        has_promoted = False
        for node_id in self._slack.pressed(now_s):
            has_promoted = True
            request = self._requests[node_id]
            self.update(request, partial(setattr, request, "is_pressed", True))
        for request in self._ages.reconsider(now_s):
            has_promoted = True
            self._extract(request)
            self._insert(request, self._key(request))
        return has_promoted

    def is_old(self, request: Request) -> bool:
        """Tell whether a queued request was moved to the front for its age."""
        return self._ages.is_old(request)

    def group_size(self, group: TaskGroupId) -> int:
        """Return how many members of a task group are queued."""
        return len(self._groups.get(group, ()))

    def group_members(self, group: TaskGroupId) -> list[Request]:
        """Return the queued members of a task group, in order of becoming ready."""
        return [self._requests[node] for node in self._groups.get(group, ())]

    def sharing_prefix(self, request: Request, limit: int) -> tuple[list[Request], int]:
        """Return the queued requests with the longest prefix shared with others, and its tokens.

        The request itself comes first; at most ``limit`` are returned. Alone, it shares 0 tokens.
        """
        for boundary in reversed(request.sharing):
            sharing = self._prefixes.get(boundary.hash)
            if sharing is not None and len(sharing) > 1:
                found = [request]
                for node_id in sharing:
                    if len(found) == limit:
                        break
                    if node_id != request.id:
                        found.append(self._requests[node_id])
                return found, boundary.tokens
        return [request], 0

    def _insert(self, request: Request, key: OrderKey) -> None:
        self._keys[request.id] = key
        self._bounded_need[request.id] = _bounded_need(request)
        self._lineup.insert(key, request)

    def _extract(self, request: Request) -> None:
        self._lineup.remove(self._keys.pop(request.id), request)


#: More than any request needs.
_EVERYTHING = 1 << 60


def _bounded_need(request: Request) -> int:
    objective = request.objective
    if objective.objective_class is not ObjectiveClass.LATENCY or request.avoided:
        return _EVERYTHING
    return request.need_tokens if objective.is_bounded else _EVERYTHING


#: From so many on, the first ones of a dict that is used as a queue are slow to find.
_LONG = 64


def _put(index: dict[_Key, dict[NodeId, None]], key: _Key, node_id: NodeId) -> None:
    found = index.get(key)
    if found is None:
        index[key] = {node_id: None}
        return
    found[node_id] = None
    if len(found) == _LONG and not isinstance(found, OrderedDict):
        index[key] = OrderedDict(found)


def _discard(index: dict[_Key, dict[NodeId, None]], key: _Key | None, node_id: NodeId) -> None:
    if key is None or key not in index:
        return
    index[key].pop(node_id, None)
    if not index[key]:
        del index[key]
