"""A round robin of three agents, and one that calls a tool, with AutoGen on Parrot.

parrot serve                                      # in another terminal
PARROT_BASE_URL=http://127.0.0.1:8642 python examples/autogen/team.py
"""

import argparse
import asyncio
import logging
import sys

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import ROOT_LOGGER_NAME

from parrot_integrations import ParrotError
from parrot_integrations.autogen import ParrotChatCompletionClient


async def word_count(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


def main() -> None:
    """Run the team, and end with status 1 if it cannot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", help="address of the server, else PARROT_BASE_URL")
    parser.add_argument("--tokens", type=int, default=48, help="longest reply")
    parser.add_argument("--turns", type=int, default=6)
    # AutoGen logs an error with its traceback for each agent that hears of it.
    logging.getLogger(ROOT_LOGGER_NAME).setLevel(logging.CRITICAL)
    try:
        asyncio.run(run(parser.parse_args()))
    except (ParrotError, RuntimeError) as exc:
        # A team raises what it has made of an error: its name and message, then where it was.
        sys.exit(f"failed: {str(exc).splitlines()[0]}")


async def run(given: argparse.Namespace) -> None:
    """Run the team and print what each agent says."""
    client = ParrotChatCompletionClient(
        base_url=given.base_url, app="poets", max_tokens=given.tokens, temperature=0
    )
    poet = AssistantAgent("poet", client, system_message="You write short poems.")
    critic = AssistantAgent("critic", client, system_message="You criticise poems, kindly.")
    counter = AssistantAgent(
        "counter", client, system_message="You count words.", tools=[word_count]
    )
    team = RoundRobinGroupChat([poet, critic, counter], max_turns=given.turns)
    async for message in team.run_stream(task="A poem about rain."):
        if hasattr(message, "to_text"):
            print(f"--- {message.source}\n{message.to_text()}")
    used = client.total_usage()
    print(f"--- {used.prompt_tokens} prompt tokens, {used.completion_tokens} generated")


if __name__ == "__main__":
    main()
