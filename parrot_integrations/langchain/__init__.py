"""LangChain and LangGraph on Parrot; installed with ``pip install parrot-serve[langchain]``.

    from parrot_integrations.langchain import ChatParrot, as_parrot

    llm = ChatParrot(base_url="http://127.0.0.1:8642", temperature=0)
    chain = as_parrot(outline | llm | StrOutputParser() | expand | llm)
    chain.invoke({"topic": "bees"})

``ChatParrot`` and ``ParrotLLM`` are drop-in models. ``as_parrot`` submits a whole chain at once.
``parrot_session`` says to which application, session and stage the calls of a block belong.
"""

from parrot_integrations.langchain.chat_models import ChatParrot
from parrot_integrations.langchain.flow import (
    if_contains,
    if_empty,
    if_ends_with,
    if_equals,
    if_starts_with,
    join_list,
    json_list,
    repeat_until,
    split_lines,
    split_list,
)
from parrot_integrations.langchain.llms import ParrotLLM
from parrot_integrations.langchain.runnable import ParrotRunnable, as_parrot
from parrot_integrations.planning.annotations import parrot_session
from parrot_integrations.planning.declared import traceable_step
from parrot_integrations.planning.watching import watch_plans

__all__ = [
    "ChatParrot",
    "ParrotLLM",
    "ParrotRunnable",
    "as_parrot",
    "if_contains",
    "if_empty",
    "if_ends_with",
    "if_equals",
    "if_starts_with",
    "join_list",
    "json_list",
    "parrot_session",
    "repeat_until",
    "split_lines",
    "split_list",
    "traceable_step",
    "watch_plans",
]
