"""Fairness between the tenants whose requests wait: an account, and the order that follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Generic, TypeVar

from parrot_backend.core.waiting_lane import Entry, Lane, SortedValues, SortKey

T = TypeVar("T")


class TenantShares:
    """How much service each tenant had of one class, while requests of the class wait.

    A tenant that comes to wait starts at no less than the least service of those that wait, so that
    a pause earns no credit (virtual token counter: Sheng et al., OSDI 2024). When none waits, all
    have what they wanted, and the account starts anew.
    """

    def __init__(self) -> None:
        self._num_waiting: Counter[str] = Counter()
        self._served_tokens: dict[str, int] = {}

    def served_tokens(self, tenant: str) -> int:
        """Return the service of a tenant that waits."""
        return self._served_tokens[tenant]

    def enter(self, tenant: str) -> None:
        """Note that one more request of a tenant waits."""
        if tenant not in self._num_waiting:
            served = self._served_tokens
            least_tokens = min((served[other] for other in self._num_waiting), default=0)
            for other in [other for other in served if served[other] < least_tokens]:
                del served[other]
            served.setdefault(tenant, least_tokens)
        self._num_waiting[tenant] += 1

    def leave(self, tenant: str) -> None:
        """Note that one request of a tenant waits no longer."""
        self._num_waiting[tenant] -= 1
        if not self._num_waiting[tenant]:
            del self._num_waiting[tenant]
        if not self._num_waiting:
            self._served_tokens.clear()

    def serve(self, tenant: str, tokens: int) -> None:
        """Note that a request of a tenant begins to run."""
        if self._num_waiting:
            self._served_tokens[tenant] = self._served_tokens.get(tenant, 0) + tokens


class TenantLanes(Generic[T]):
    """Waiting requests of one class and deadline, the tenant with the least service first.

    Service only grows while a tenant waits, so a tenant that is ranked by an old account stands too
    far in front and never too far behind: it is enough to correct whoever comes first.
    """

    __slots__ = ("_lanes", "_ranked", "_ranks", "_shares")

    def __init__(self, shares: TenantShares) -> None:
        self._shares = shares
        self._lanes: dict[str, Lane[T]] = {}
        self._ranks: dict[str, SortKey] = {}
        self._ranked: SortedValues[str] = SortedValues()

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def add(self, entry: Entry[T], *, has_begun: bool) -> None:
        """Put in a request; its task group has begun for all members here or for none."""
        tenant = entry.hints.tenant
        self._lanes.setdefault(tenant, Lane()).add(entry, has_begun=has_begun)
        self._rank(tenant)

    def remove(self, entry: Entry[T]) -> None:
        """Take out a request that is here."""
        tenant = entry.hints.tenant
        self._lanes[tenant].remove(entry)
        self._rank(tenant)

    def in_order(self, prefix_group: str | None) -> Iterator[Entry[T]]:
        """Yield the requests in serving order; there must be one.

        Args:
            prefix_group: That of the request admitted last.
        """
        rank, first = self._ranked.first()
        while rank[0] < self._shares.served_tokens(first):
            self._rank(first)
            rank, first = self._ranked.first()
        yield from self._lanes[first].in_order(prefix_group)
        for tenant in self._lanes:
            self._rank(tenant)
        for tenant in self._ranked:
            if tenant != first:
                yield from self._lanes[tenant].in_order(prefix_group)

    def _rank(self, tenant: str) -> None:
        if tenant in self._ranks:
            self._ranked.remove(self._ranks.pop(tenant))
        lane = self._lanes[tenant]
        if not lane:
            del self._lanes[tenant]
            return
        # Equal accounts: whose first unit would go first if there were one tenant.
        rank = self._ranks[tenant] = (self._shares.served_tokens(tenant), *lane.rank)
        self._ranked.insert(rank, tenant)
