"""Semantic Kernel on Parrot; installed with ``pip install parrot-serve[semantic-kernel]``.

    from parrot_integrations.semantic_kernel import ParrotChatCompletion

    kernel = Kernel(services=ParrotChatCompletion(host="http://127.0.0.1:8642"))

``ParrotChatCompletion`` and ``ParrotTextCompletion`` are drop-in services. ``parrot_session`` says
to which application, session and stage the calls of a block belong.
"""

from parrot_integrations.planning.annotations import parrot_session
from parrot_integrations.planning.watching import watch_plans
from parrot_integrations.semantic_kernel.chat_completion import ParrotChatCompletion
from parrot_integrations.semantic_kernel.execution_settings import (
    ParrotChatPromptExecutionSettings,
    ParrotPromptExecutionSettings,
    ParrotTextPromptExecutionSettings,
)
from parrot_integrations.semantic_kernel.settings import ParrotSettings
from parrot_integrations.semantic_kernel.text_completion import ParrotTextCompletion

__all__ = [
    "ParrotChatCompletion",
    "ParrotChatPromptExecutionSettings",
    "ParrotPromptExecutionSettings",
    "ParrotSettings",
    "ParrotTextCompletion",
    "ParrotTextPromptExecutionSettings",
    "parrot_session",
    "watch_plans",
]
