"""What templates get for a kernel while they are planned: its functions, none of which runs."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from semantic_kernel import Kernel
from semantic_kernel.functions import KernelArguments, KernelFunction
from semantic_kernel.functions.kernel_function_metadata import KernelFunctionMetadata

from parrot_integrations.semantic_kernel.symbolic import TracedResult

#: Takes the place of an invocation.
Traced = Callable[[KernelFunction, KernelArguments], Awaitable[TracedResult]]

#: Loggers that say of a rendering what they will say again of the one of the run.
_LOGGERS = (
    "contents.chat_history",
    "contents.chat_message_content",
    "functions.kernel_function_extension",
    "prompt_template.handlebars_prompt_template",
    "prompt_template.jinja2_prompt_template",
    "prompt_template.kernel_prompt_template",
    "template_engine.blocks.code_block",
    "template_engine.blocks.var_block",
)

_is_quiet: ContextVar[bool] = ContextVar("parrot_quiet_rendering", default=False)


class ShadowFunction:
    """A function of the kernel as a template uses it.

    Args:
        function: The function.
        traced: Takes the place of its invocation.
    """

    def __init__(self, function: KernelFunction, traced: Traced) -> None:
        self._function = function
        self._traced = traced

    @property
    def metadata(self) -> KernelFunctionMetadata:
        """What is known of the function."""
        return self._function.metadata

    @property
    def fully_qualified_name(self) -> str:
        """Its name with that of its plugin."""
        return self._function.fully_qualified_name

    async def invoke(
        self, kernel: object, arguments: KernelArguments | None = None, **kwargs: Any
    ) -> TracedResult:
        """Trace an invocation."""
        given = KernelArguments(**kwargs) if arguments is None else arguments
        return await self._traced(self._function, given)


class ShadowKernel:
    """A kernel as a template uses it.

    Args:
        kernel: The kernel.
        traced: Takes the place of every invocation.
    """

    def __init__(self, kernel: Kernel, traced: Traced) -> None:
        self._kernel = kernel
        self._traced = traced

    @property
    def plugins(self) -> dict[str, list[ShadowFunction]]:
        """The functions of each plugin."""
        return {
            name: [ShadowFunction(function, self._traced) for function in plugin]
            for name, plugin in self._kernel.plugins.items()
        }

    def get_function(self, plugin_name: str | None, function_name: str) -> ShadowFunction:
        """Return a function, as ``Kernel.get_function``."""
        return ShadowFunction(self._kernel.get_function(plugin_name, function_name), self._traced)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep template engines from logging in a block what they log in the run as well."""
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


def _is_heard(_record: logging.LogRecord) -> bool:
    return not _is_quiet.get()


for _name in _LOGGERS:
    logging.getLogger(f"semantic_kernel.{_name}").addFilter(_is_heard)
