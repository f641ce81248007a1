"""A plan that is told a late-bound value before a call with it is made."""

from __future__ import annotations

import pytest

from parrot_integrations.planning.background import background
from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.calls import CallOptions, ChatMessage, ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.direct import DirectReply
from parrot_integrations.planning.plan import Plan, PlanTerms
from tests.helpers.fake_parrot import FakeParrot


def ask(text: str) -> ModelCall:
    return ModelCall(CallOptions(), messages=(ChatMessage("user", text),))


def claim(plan: Plan, call: ModelCall, connection: Connection) -> str | None:
    direct = DirectReply(call, connection)
    reply = plan.claim(call, endpoint=connection.settings, direct=direct)
    return None if reply is None else reply.result().value


@pytest.mark.parametrize("is_sent_before", [True, False])
def test_two_values_side_by_side(
    fake: FakeParrot, connection: Connection, is_sent_before: bool
) -> None:
    builder = PlanBuilder()
    if is_sent_before:
        builder.call(ask("first"), "first")
    one, two = builder.late("one", "made here"), builder.late("two", "made here")
    builder.call(ask(f"{one}{two}"), "both")
    builder.call(ask(f"{two} again"), "again")
    plan = Plan(builder.program(), connection, PlanTerms())
    plan.start()
    assert len(fake.submits) <= is_sent_before
    plan.tell(two.symbol.variable, "B")
    plan.tell(one.symbol.variable, "A")
    # What is known is left as it is.
    plan.tell(one.symbol.variable, "C")
    assert claim(plan, ask("AB"), connection) == "<AB>"
    assert claim(plan, ask("B again"), connection) == "<B again>"
    assert claim(plan, ask("C"), connection) is None
    plan.close()
    plan.tell(one.symbol.variable, "D")
    assert background().settle(10)
    assert len(fake.submits) == 1
    # The call that is ready first takes the graph along; without one, the first value does.
    assert plan.report().num_sets == (2 if is_sent_before else 1)
