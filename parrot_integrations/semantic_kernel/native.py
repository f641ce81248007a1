"""Native functions in plans: steps of the client, unless they were declared harmless."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

from semantic_kernel.functions import (
    FunctionResult,
    KernelArguments,
    KernelFunction,
    KernelFunctionFromMethod,
)

from parrot_integrations.planning.declared import is_traceable
from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.semantic_kernel.symbolic import TemplateText

#: What the framework hands to functions that ask for it: with these, one does what it likes.
_HANDED = frozenset({"kernel", "service", "execution_settings", "arguments"})


async def look_through(function: KernelFunction, arguments: KernelArguments) -> str:
    """Return the text of the result of a function that was declared harmless.

    Raises:
        CannotPlan: It was not, or does more than to put texts together.
    """
    if type(function) is not KernelFunctionFromMethod or not is_traceable(function.method):
        raise CannotPlan("a native function; see traceable_step()")
    if any(parameter.name in _HANDED for parameter in function.parameters):
        raise CannotPlan("a native function that is handed the kernel or its arguments")
    result = function.method(**_gathered(function, arguments))
    if inspect.isawaitable(result):
        result = await result
    if inspect.isasyncgen(result) or inspect.isgenerator(result):
        raise CannotPlan("a native function whose result comes in pieces")
    if isinstance(result, str):
        return result
    return str(FunctionResult(function=function.metadata, value=result))


def _gathered(function: KernelFunctionFromMethod, arguments: KernelArguments) -> dict[str, Any]:
    """Return what the method gets; a stand-in stays one where the framework makes it a text."""
    context: Any = SimpleNamespace(kernel=None, arguments=arguments)
    found = function.gather_function_parameters(context)
    for name, value in found.items():
        given = arguments.get(name)
        if isinstance(given, TemplateText) and type(value) is str:
            found[name] = given
    return found
