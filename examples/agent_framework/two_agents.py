"""A writer and a critic in a workflow: the critic judges what the writer wrote.

Start a server with ``parrot serve``, set ``PARROT_BASE_URL`` to the address it prints, and run
``python examples/agent_framework/two_agents.py "the sea"``.
"""

import asyncio
import sys

from agent_framework import Agent, Workflow, WorkflowBuilder

from parrot_integrations.agent_framework import ParrotChatClient, ParrotChatOptions, parrot_session


def build(client: ParrotChatClient) -> Workflow:
    """Return the workflow: a topic to a poem and what the critic says of it."""
    writer = Agent(
        client,
        "You write poems of four lines about the topic you are given.",
        name="writer",
        default_options=ParrotChatOptions(max_tokens=64, stage="write"),
    )
    critic = Agent(
        client,
        "You say in one sentence what is good about the poem, and in one what is not.",
        name="critic",
        default_options=ParrotChatOptions(max_tokens=64, stage="judge"),
    )
    return WorkflowBuilder(start_executor=writer).add_edge(writer, critic).build()


async def main(topic: str) -> None:
    """Run the workflow and print what each agent said."""
    workflow = build(ParrotChatClient())
    with parrot_session(app="two-agents", session=topic):
        result = await workflow.run(topic)
    for response in result.get_outputs():
        for message in response.messages:
            print(f"--- {message.author_name} ---", message.text, sep="\n")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "the sea"))
