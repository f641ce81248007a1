"""AutoGen on Parrot; installed with ``parrot-serve[autogen]``.

    from autogen_agentchat.agents import AssistantAgent
    from parrot_integrations.autogen import ParrotChatCompletionClient

    client = ParrotChatCompletionClient(base_url="http://127.0.0.1:8642")
    agent = AssistantAgent("teacher", client, system_message="You answer in one sentence.")
    print((await agent.run(task="Why is the sky blue?")).messages[-1].content)

``parrot_session`` says to which application, session and stage the calls of a block belong. In
teams the session is the team's id and the stage the agent's name, if nothing else is said.
"""

from parrot_integrations.autogen.chat_client import ParrotChatCompletionClient
from parrot_integrations.autogen.config import ParrotClientConfig
from parrot_integrations.planning.annotations import parrot_session

__all__ = ["ParrotChatCompletionClient", "ParrotClientConfig", "parrot_session"]
