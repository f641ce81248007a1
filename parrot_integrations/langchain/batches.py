"""A batch as one submit: its calls are planned from the inputs, then the framework runs them.

Each input still goes through ``invoke`` with its callbacks; the call that it makes finds its reply
here. What was foreseen wrongly is sent by itself, and what is not asked for is given up.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager

from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.context import current_plan, in_force
from parrot_integrations.planning.direct import replies_to
from parrot_integrations.planning.groups import GroupReply
from parrot_integrations.planning.reply import Direct, Reply
from parrot_integrations.planning.submits import Terms
from parrot_integrations.settings import ClientSettings


class BatchPlan:
    """The replies to a batch's calls; see ``context.PlanInForce``.

    Args:
        calls: Every call with how it is sent, in order.
        connection: Where they are sent.
    """

    def __init__(self, calls: Iterable[tuple[ModelCall, Terms]], connection: Connection) -> None:
        self._endpoint = connection.settings
        self._outer = current_plan.get()
        self._lock = threading.Lock()
        self._replies: defaultdict[Hashable, deque[Reply]] = defaultdict(deque)
        for terms, alike in _by_terms(calls):
            for call, reply in zip(alike, replies_to(alike, connection, terms), strict=True):
                self._replies[_key(call)].append(reply)

    def claim(self, call: ModelCall, *, endpoint: ClientSettings, direct: Direct) -> Reply | None:
        """Return the reply to a call that nobody has claimed yet."""
        with self._lock:
            replies = self._replies.get(_key(call))
            if replies and endpoint == self._endpoint:
                return replies.popleft()
        # For example the second try of a call: a plan around the batch may have that.
        if self._outer is None:
            return None
        return self._outer.claim(call, endpoint=endpoint, direct=direct)

    def give_up(self) -> None:
        """Drop what nobody reads any more."""
        with self._lock:
            left = [reply for replies in self._replies.values() for reply in replies]
        for group in {id(r.group): r.group for r in left if isinstance(r, GroupReply)}.values():
            group.give_up()


@contextmanager
def planned_batch(
    calls: Iterable[tuple[ModelCall, Terms]], connection: Connection
) -> Iterator[None]:
    """Plan the calls of a batch for a block that makes them."""
    plan = BatchPlan(calls, connection)
    try:
        with in_force(plan):
            yield
    finally:
        plan.give_up()


def _by_terms(
    calls: Iterable[tuple[ModelCall, Terms]],
) -> list[tuple[Terms, list[ModelCall]]]:
    """Gather calls that can share a submit; nearly always all of them."""
    groups: dict[str, tuple[Terms, list[ModelCall]]] = {}
    for call, terms in calls:
        groups.setdefault(repr(terms), (terms, []))[1].append(call)
    return list(groups.values())


def _key(call: ModelCall) -> Hashable:
    return (call.frame, call.texts)
