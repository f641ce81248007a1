"""LangChain and LangGraph on Parrot; installed with ``pip install parrot-serve[langchain]``.

    from parrot_integrations.langchain import ChatParrot

    llm = ChatParrot(base_url="http://127.0.0.1:8642", temperature=0)
    (prompt | llm | StrOutputParser()).invoke({"topic": "bees"})

``ChatParrot`` and ``ParrotLLM`` are drop-in models. ``parrot_session`` says to which application,
session and stage the calls of a block belong.
"""

from parrot_integrations.langchain.annotations import parrot_session
from parrot_integrations.langchain.chat_models import ChatParrot
from parrot_integrations.langchain.llms import ParrotLLM

__all__ = ["ChatParrot", "ParrotLLM", "parrot_session"]
