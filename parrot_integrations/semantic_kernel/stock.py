"""What is exactly the framework's own, and so does what the tracer knows that it does."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from semantic_kernel import Kernel
from semantic_kernel.functions import KernelFunction, KernelFunctionFromPrompt
from semantic_kernel.prompt_template import (
    HandlebarsPromptTemplate,
    Jinja2PromptTemplate,
    KernelPromptTemplate,
)
from semantic_kernel.services.ai_service_selector import AIServiceSelector

from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.semantic_kernel.chat_completion import ParrotChatCompletion
from parrot_integrations.semantic_kernel.text_completion import ParrotTextCompletion

_TEMPLATES = (KernelPromptTemplate, HandlebarsPromptTemplate, Jinja2PromptTemplate)
_FUNCTION = """
    invoke invoke_stream _invoke_internal _invoke_internal_stream _render_prompt
    _inner_render_prompt update_arguments_with_defaults _create_function_result __call__
""".split()  # noqa: SIM905 - shorter so
_KERNEL = """
    get_function get_service get_services_by_type select_ai_service construct_call_stack
""".split()  # noqa: SIM905 - shorter so
_CHAT = """
    get_chat_message_contents get_streaming_chat_message_contents foresee
    _inner_get_chat_message_contents _inner_get_streaming_chat_message_contents
    _prepare_chat_history_for_request _calls _options connection
""".split()  # noqa: SIM905 - shorter so
_TEXT = """
    get_text_contents get_streaming_text_contents foresee _inner_get_text_contents
    _inner_get_streaming_text_contents _calls _options connection
""".split()  # noqa: SIM905 - shorter so


def check_kernel(kernel: Kernel) -> None:
    """Make sure that a kernel finds functions and services as the framework's does.

    Raises:
        CannotPlan: It does not.
    """
    if not has_own(type(kernel), Kernel, _KERNEL):
        raise CannotPlan("the kernel's class says itself what it does")
    if type(kernel.ai_service_selector) is not AIServiceSelector:
        raise CannotPlan("the kernel has a service selector of its own")


def check_prompt_function(function: KernelFunctionFromPrompt) -> None:
    """Make sure that a function renders and asks as the framework's does.

    Raises:
        CannotPlan: It does not.
    """
    if not has_own(type(function), KernelFunctionFromPrompt, _FUNCTION):
        raise CannotPlan("its class says itself what it does")
    if type(function.prompt_template) not in _TEMPLATES:
        raise CannotPlan("its template is of another format")


def check_service(service: object) -> None:
    """Make sure that a service is one of ours.

    Raises:
        CannotPlan: It is not.
    """
    kind = type(service)
    is_chat = isinstance(service, ParrotChatCompletion)
    if not is_chat and not isinstance(service, ParrotTextCompletion):
        raise CannotPlan(f"its service is a {kind.__name__}")
    if is_chat and not has_own(kind, ParrotChatCompletion, _CHAT):
        raise CannotPlan("its service's class says itself what it does")
    if not is_chat and not has_own(kind, ParrotTextCompletion, _TEXT):
        raise CannotPlan("its service's class says itself what it does")


def is_prompt(function: KernelFunction) -> bool:
    """Tell whether a function asks a model by a prompt."""
    return isinstance(function, KernelFunctionFromPrompt)


def has_own(kind: type, base: type, names: Iterable[str]) -> bool:
    """Tell whether a class has these of its base class, as they are."""
    return issubclass(kind, base) and all(
        inspect.getattr_static(kind, name) is inspect.getattr_static(base, name) for name in names
    )
