"""Microsoft Agent Framework on Parrot; installed with ``parrot-serve[agent-framework]``.

    from agent_framework import Agent
    from parrot_integrations.agent_framework import ParrotChatClient

    client = ParrotChatClient(base_url="http://127.0.0.1:8642")
    agent = Agent(client, "You answer in one sentence.", name="teacher")
    print((await agent.run("Why is the sky blue?")).text)

``parrot_session`` says to which application, session and stage the calls of a block belong.
"""

from parrot_integrations.agent_framework.chat_client import ParrotChatClient
from parrot_integrations.agent_framework.options import ParrotChatOptions
from parrot_integrations.planning.annotations import parrot_session

__all__ = ["ParrotChatClient", "ParrotChatOptions", "parrot_session"]
