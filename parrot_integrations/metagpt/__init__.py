"""MetaGPT on Parrot: its own package, its configuration and the programs as they are.

    from parrot_integrations.metagpt import install

    install()
    await team.run(n_round=3, idea="Write a snake game")

The server then knows which outputs each call reads, because the prompts say so with references in
place of texts. ``watch_runs`` shows what it made of a run; ``parrot_session`` says to which
application and session the runs in a block belong.
"""

from parrot_integrations.metagpt.hooks import install
from parrot_integrations.metagpt.provider import ParrotLLM
from parrot_integrations.metagpt.runs import TeamRun, watch_runs
from parrot_integrations.planning.annotations import parrot_session

__all__ = ["ParrotLLM", "TeamRun", "install", "parrot_session", "watch_runs"]
