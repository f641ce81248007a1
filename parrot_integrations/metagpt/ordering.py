"""Putting what prompts have in common before what is a role's own. Pure.

MetaGPT begins each prompt with a system message that names the role, so that no two roles' prompts
have a beginning in common, although nearly all that follows is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parrot_integrations.planning.calls import ChatMessage


def shared_first(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Return a chat whose system messages stand at the end of its last user's message.

    The model is told the same in another order: this changes the prompt, and so the reply.
    """
    said = [message.content for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    users = [i for i, message in enumerate(rest) if message.role == "user"]
    if not said or not users:
        return tuple(messages)
    last = rest[users[-1]]
    rest[users[-1]] = replace(last, content="\n\n".join([last.content, *said]))
    return tuple(rest)
