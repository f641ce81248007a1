"""Which agent of which team is at work, as AutoGen's runtime knows it."""

from __future__ import annotations

from collections.abc import Sequence

from autogen_core import MessageHandlerContext
from autogen_core.models import AssistantMessage, LLMMessage

from parrot_integrations.planning.annotations import Annotation, label


def at_work(messages: Sequence[LLMMessage]) -> Annotation:
    """Return the team's id as the session, and the agent's name as the stage.

    Outside a team there is no session, and the name is that of the agent's own earlier messages.
    """
    try:
        agent = MessageHandlerContext.agent_id()
    except RuntimeError:
        own = (m.source for m in reversed(messages) if isinstance(m, AssistantMessage))
        return Annotation(stage=label(next(own, None)))
    # Types of participants are made unique by the id of their team, which is their key.
    name = agent.type.removesuffix(f"_{agent.key}")
    return Annotation(session=label(agent.key), stage=label(name))
