"""The plan in force: where an adapter asks for a reply before it sends a call by itself.

A planner puts a plan in force around the replay of a program. The context variable reaches threads
and tasks that the framework starts, because frameworks copy the context into them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.reply import Direct, Reply
from parrot_integrations.settings import ClientSettings


class PlanInForce(Protocol):
    """What a plan offers to the calls of the program that is replayed."""

    def claim(self, call: ModelCall, *, endpoint: ClientSettings, direct: Direct) -> Reply | None:
        """Return the reply to a call that runs already; None leaves it to the caller to send.

        Args:
            call: The call with its concrete texts.
            endpoint: Where it would be sent; a call planned for another server does not match.
            direct: The reply to the call sent by itself, for a plan that is lost; it has not been
                sent before it is read.
        """


#: The innermost plan in force; None means that calls are sent by themselves.
current_plan: ContextVar[PlanInForce | None] = ContextVar("parrot_current_plan", default=None)


@contextmanager
def in_force(plan: PlanInForce | None) -> Iterator[None]:
    """Put a plan in force for a block; around a ``yield`` it would leak to the caller."""
    token = current_plan.set(plan)
    try:
        yield
    finally:
        current_plan.reset(token)


def claim(call: ModelCall, endpoint: ClientSettings, direct: Direct) -> Reply | None:
    """Ask the plan in force, if there is one."""
    plan = current_plan.get()
    return None if plan is None else plan.claim(call, endpoint=endpoint, direct=direct)
