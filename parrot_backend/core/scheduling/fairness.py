"""Fairness between tenants: each gets its share of service, whatever the others send.

As in start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) over tenants, with service in
tokens and newcomers as in the virtual token counter (Sheng et al., OSDI 2024). Each tenant has a
*start*: its service so far over its weight. The tenant with the least start is served next, with
whatever comes first in its own order. A tenant that comes to wait starts no earlier than the least
start of those that wait, so a pause earns no credit, and newcomers are not served before all
others. Of two tenants that both wait, over any time, the services over weights differ by no more
than one largest request of each (or what is placed together with it).

Classes come first: a tenant competes in the class of what it has waiting, in each by an account of
its own. What is old competes with the first class, as the first of its tenant: so a flood of old
requests does not go before all that others send.

Requests are charged what they are expected to take when they are placed, and the difference when
they end. Who has waited all the while gets back all that was too much; else a start falls to no
less than the present, which is the largest least start so far. When nobody waits in a class, all
have what they wanted, and its accounts begin anew.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping

from parrot_backend.core.ids import NodeId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.lineup import Place
from parrot_backend.core.scheduling.orders import OrderKey


class FairLineup:
    """Requests by class, then fairly by tenant, then by key.

    Args:
        weights: Shares of tenants; 1 if not given.
        with_classes: Whether the second number of keys is a class; the first says what is old.
    """

    def __init__(self, weights: Mapping[str, float], *, with_classes: bool) -> None:
        self._weights = weights
        self._with_classes = with_classes
        self._classes: dict[int, TenantLanes] = {}
        self._num_requests = 0

    def __len__(self) -> int:
        return self._num_requests

    def __getitem__(self, position: int) -> Place:
        for number in sorted(self._classes):
            lanes = self._classes[number]
            if position < len(lanes):
                return lanes.at(position)
            position -= len(lanes)
        raise IndexError(position)

    def __iter__(self) -> Iterator[Place]:
        for number in sorted(self._classes):
            yield from self._classes[number].in_order()

    def insert(self, key: OrderKey, request: Request) -> None:
        """Put in a request that is not there."""
        number = self._class_of(key)
        lanes = self._classes.get(number)
        if lanes is None:
            lanes = self._classes[number] = TenantLanes(self._weights)
        lanes.insert((key, request.id), request.tenant, expected_service(request))
        self._num_requests += 1

    def remove(self, key: OrderKey, request: Request) -> None:
        """Take out a request that was put in with this key."""
        number = self._class_of(key)
        lanes = self._classes[number]
        lanes.remove((key, request.id), request.tenant)
        self._num_requests -= 1
        if not len(lanes):
            del self._classes[number]

    def serve(self, key: OrderKey, request: Request, tokens: float) -> None:
        """Take in that a request, which is about to be taken out, gets so much service."""
        self._classes[self._class_of(key)].charge(request.id, request.tenant, tokens)

    def settle(self, request: Request, tokens: float | None) -> None:
        """Take in how much service a request had in the end; None if it did not come to that."""
        for lanes in self._classes.values():
            lanes.settle(request.id, request.tenant, tokens)

    def _class_of(self, key: OrderKey) -> int:
        return int(key[1]) if key[0] and self._with_classes else 0


class TenantLanes:
    """Waiting requests of one class, and the account of each tenant."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._lanes: dict[str, list[Place]] = {}
        self._service: dict[NodeId, float] = {}
        self._starts: dict[str, float] = {}
        # Tenants that wait, by start and key of their first; and those that do not, by start.
        self._ranked: list[tuple[float, Place, str]] = []
        self._idle: list[tuple[float, str]] = []
        self._charged: dict[NodeId, float] = {}
        # The largest least start so far; what is given back takes starts below it again.
        self._present = 0.0
        # How often somebody has come to wait: of each tenant that waits, when it came; and of what
        # was charged, when its tenant had come.
        self._num_comings = 0
        self._came: dict[str, int] = {}
        self._charged_of: dict[NodeId, int] = {}
        # The serving order as far as somebody has looked since the last change; behind it, the
        # tenants that are in it already, by where their next one would be, and how many they are.
        self._seen: list[Place] = []
        self._advanced: list[tuple[float, Place, str, int]] = []
        self._num_ranked = 0

    def __len__(self) -> int:
        return len(self._service)

    def at(self, position: int) -> Place:
        """Return what would be served after so many others of this class, if nothing came."""
        if not position:
            _, first, _ = self._ranked[0]
            return first
        while len(self._seen) <= position:
            self._look_further()
        return self._seen[position]

    def in_order(self) -> Iterator[Place]:
        """Yield the requests as they would be served if nothing came."""
        return map(self.at, range(len(self)))

    def _look_further(self) -> None:
        """Find one more of the serving order: tenants move back by what they would be charged."""
        advanced, ranked = self._advanced, self._ranked
        is_new = self._num_ranked < len(ranked)
        if is_new and (not advanced or ranked[self._num_ranked] < advanced[0][:3]):
            start, place, tenant = ranked[self._num_ranked]
            self._num_ranked += 1
            position = 0
        else:
            start, place, tenant, position = heapq.heappop(advanced)
        self._seen.append(place)
        lane, position = self._lanes[tenant], position + 1
        if position < len(lane):
            start += self._service[place[1]] / self._weight(tenant)
            heapq.heappush(advanced, (start, lane[position], tenant, position))

    def insert(self, place: Place, tenant: str, service_tokens: float) -> None:
        """Put in a request that is expected to need so much service."""
        self._service[place[1]] = service_tokens
        lane = self._lanes.get(tenant)
        if lane is None:
            self._lanes[tenant] = [place]
            self._starts[tenant] = max(self._starts.get(tenant, 0.0), self._now())
            self._num_comings += 1
            self._came[tenant] = self._num_comings
            insort(self._ranked, (self._starts[tenant], place, tenant))
        else:
            first = lane[0]
            insort(lane, place)
            if lane[0] is place:
                self._rank(tenant, self._starts[tenant], first)
        self._change()

    def remove(self, place: Place, tenant: str) -> None:
        """Take out a request."""
        lane = self._lanes[tenant]
        first, start = lane[0], self._starts[tenant]
        position = bisect_left(lane, place)
        assert lane[position] == place
        del lane[position], self._service[place[1]]
        if not lane:
            del self._lanes[tenant], self._came[tenant]
            del self._ranked[bisect_left(self._ranked, (start, first, tenant))]
            heapq.heappush(self._idle, (start, tenant))
            self._forget_idle()
        elif not position:
            self._rank(tenant, start, first)
        self._change()

    def charge(self, request: NodeId, tenant: str, tokens: float) -> None:
        """Take in that a waiting request of a tenant is served; a second try costs the rest."""
        start = self._starts[tenant]
        more_tokens = max(0.0, tokens - self._charged.get(request, 0.0))
        # A first try from before the tenant was away settles with it.
        self._charged_of.setdefault(request, self._came[tenant])
        self._charged[request] = self._charged.get(request, 0.0) + more_tokens
        self._starts[tenant] = start + more_tokens / self._weight(tenant)
        self._rank(tenant, start, self._lanes[tenant][0])
        self._forget_idle()
        self._change()

    def settle(self, request: NodeId, tenant: str, tokens: float | None) -> None:
        """Correct what a request was charged; who was away since gets no credit from before."""
        charged, came = self._charged.pop(request, None), self._charged_of.pop(request, None)
        if charged is None or tokens is None:
            return
        now = self._now()
        start = self._starts.get(tenant, now)
        right = start + (tokens - charged) / self._weight(tenant)
        if self._came.get(tenant) != came:
            right = max(right, min(start, now))
        if tenant in self._lanes:
            self._starts[tenant] = right
            self._rank(tenant, start, self._lanes[tenant][0])
            self._change()
        elif right > now:
            self._starts[tenant] = right
            heapq.heappush(self._idle, (right, tenant))
        else:
            self._starts.pop(tenant, None)  # it comes back at the present, like anybody

    def _change(self) -> None:
        self._seen, self._advanced, self._num_ranked = [], [], 0

    def _rank(self, tenant: str, old_start: float, old_first: Place) -> None:
        """Put a waiting tenant where it belongs now."""
        del self._ranked[bisect_left(self._ranked, (old_start, old_first, tenant))]
        insort(self._ranked, (self._starts[tenant], self._lanes[tenant][0], tenant))

    def _now(self) -> float:
        """Return the present: what a tenant starts from that was away."""
        if self._ranked:
            self._present = max(self._present, self._ranked[0][0])
        return self._present

    def _forget_idle(self) -> None:
        """Forget the accounts of tenants that do not wait and would begin at the present anyway."""
        now = self._now()
        while self._idle and self._idle[0][0] <= now:
            _, tenant = heapq.heappop(self._idle)
            if tenant not in self._lanes and self._starts.get(tenant, math.inf) <= now:
                del self._starts[tenant]

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)


def expected_service(request: Request, cached_tokens: int = 0) -> float:
    """Return the service that a request is expected to need, in tokens.

    Args:
        request: It is ready.
        cached_tokens: The part of its prompt that its engine need not compute.
    """
    return max(0, request.prompt_tokens - cached_tokens) + request.expected_tokens
