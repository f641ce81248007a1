"""Copies of arguments, which an invocation and its templates may change while a plan is made."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Iterable
from copy import copy, deepcopy
from typing import Any

from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.functions import KernelArguments
from semantic_kernel.functions.kernel_function_metadata import KernelFunctionMetadata
from semantic_kernel.kernel_pydantic import KernelBaseModel
from semantic_kernel.services.ai_service_client_base import AIServiceClientBase

from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.semantic_kernel.symbolic import TemplateText

#: Types whose texts run nobody's code, and that nobody can change.
_VALUES = (
    *(str, int, float, bool, bytes, type(None), complex, TemplateText, uuid.UUID),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
)
_CONTAINERS = (list, tuple, set, frozenset)
#: What results and histories bring along; it is not copied, for it holds classes and connections.
_BROUGHT_ALONG = (KernelFunctionMetadata, PromptExecutionSettings, AIServiceClientBase)

#: Packages of what services put into their replies: records that nobody changes.
_REPLIES = frozenset({"openai", "parrot_backend", "parrot_integrations"})


def copied(arguments: KernelArguments, known: dict[int, Any]) -> KernelArguments:
    """Return arguments that may be changed as an invocation and its templates change them.

    The services' settings are added to those of the arguments (the framework's own way), and
    defaults to the arguments. Templates may call methods, such as those of a chat history.

    Args:
        arguments: Those of one invocation.
        known: What was copied already, as ``deepcopy`` takes it: invocations may share a history.

    Raises:
        CannotPlan: A template might run code of the program through one of them.
    """
    for name, value in arguments.items():
        if not _is_plain(value, known):
            kind = type(value).__name__
            raise CannotPlan(f"argument {name} is, or holds, what is of the program's own: {kind}")
    found = copy(arguments)
    for name, value in arguments.items():
        if type(value) not in _VALUES:
            found[name] = deepcopy(value, known)
    if arguments.execution_settings is not None:
        found.execution_settings = dict(arguments.execution_settings)
    return found


def _is_plain(value: Any, known: dict[int, Any]) -> bool:
    """Tell whether a value is known through and through.

    Args:
        value: The value.
        known: Gets what stays itself in a copy of the value.
    """
    kind = type(value)
    if kind in _VALUES:
        return True
    if kind in _CONTAINERS:
        return _are_plain(value, known)
    if kind is dict or kind is KernelArguments:
        return _are_plain((*value, *value.values()), known)
    if issubclass(kind, enum.Enum):
        return kind.__str__ in (enum.Enum.__str__, str.__str__)
    package = kind.__module__.partition(".")[0]
    is_theirs = package == "semantic_kernel" and issubclass(kind, KernelBaseModel)
    if package in _REPLIES or (is_theirs and issubclass(kind, _BROUGHT_ALONG)):
        known[id(value)] = value
        return True
    return is_theirs and _are_plain(_fields_of(value), known)


def _are_plain(values: Iterable[Any], known: dict[int, Any]) -> bool:
    return all(_is_plain(value, known) for value in values)


def _fields_of(model: KernelBaseModel) -> Iterable[Any]:
    """Return all that a model of the framework holds, whatever was put into it since."""
    own = vars(model), model.__pydantic_extra__, model.__pydantic_private__
    return [value for held in own if held for value in held.values()]
