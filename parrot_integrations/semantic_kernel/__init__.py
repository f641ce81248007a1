"""Semantic Kernel on Parrot; installed with ``pip install parrot-serve[semantic-kernel]``.

    from parrot_integrations.semantic_kernel import ParrotChatCompletion

    kernel = Kernel(services=ParrotChatCompletion(host="http://127.0.0.1:8642"))

``ParrotChatCompletion`` and ``ParrotTextCompletion`` are drop-in services. With the filter
``ParrotPlanFilter``, prompt functions that invoke others are sent as one graph.
``parrot_session`` says to which application, session and stage the calls of a block belong.
``ParrotSequentialOrchestration`` and its like plan orchestrations of agents.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from parrot_integrations.planning.annotations import parrot_session
from parrot_integrations.planning.declared import traceable_step
from parrot_integrations.planning.watching import watch_plans
from parrot_integrations.semantic_kernel.chat_completion import ParrotChatCompletion
from parrot_integrations.semantic_kernel.chunks import aggregate, map_chunks
from parrot_integrations.semantic_kernel.execution_settings import (
    ParrotChatPromptExecutionSettings,
    ParrotPromptExecutionSettings,
    ParrotTextPromptExecutionSettings,
)
from parrot_integrations.semantic_kernel.pipeline import ParrotPipeline
from parrot_integrations.semantic_kernel.plan_filter import ParrotPlanFilter, plan_function
from parrot_integrations.semantic_kernel.settings import ParrotSettings
from parrot_integrations.semantic_kernel.text_completion import ParrotTextCompletion

if TYPE_CHECKING:
    from parrot_integrations.semantic_kernel.orchestrations import (
        ParrotConcurrentOrchestration,
        ParrotGroupChatOrchestration,
        ParrotSequentialOrchestration,
    )

__all__ = [
    "ParrotChatCompletion",
    "ParrotChatPromptExecutionSettings",
    "ParrotConcurrentOrchestration",
    "ParrotGroupChatOrchestration",
    "ParrotPipeline",
    "ParrotPlanFilter",
    "ParrotPromptExecutionSettings",
    "ParrotSequentialOrchestration",
    "ParrotSettings",
    "ParrotTextCompletion",
    "ParrotTextPromptExecutionSettings",
    "aggregate",
    "map_chunks",
    "parrot_session",
    "plan_function",
    "traceable_step",
    "watch_plans",
]

_ORCHESTRATIONS = frozenset(name for name in __all__ if name.endswith("Orchestration"))


def __getattr__(name: str) -> Any:
    """Import the orchestrations when they are first asked for: the framework's need protobuf."""
    if name in _ORCHESTRATIONS:
        return getattr(import_module("parrot_integrations.semantic_kernel.orchestrations"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
