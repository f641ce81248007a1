"""Kernels with prompt functions, and what a run of them comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from semantic_kernel import Kernel
from semantic_kernel.contents import ChatMessageContent, TextContent
from semantic_kernel.contents.streaming_content_mixin import StreamingContentMixin
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import (
    FunctionResult,
    KernelArguments,
    KernelFunction,
    KernelFunctionFromPrompt,
)
from semantic_kernel.prompt_template import InputVariable, PromptTemplateConfig

from parrot_integrations.planning.background import background
from parrot_integrations.planning.clients import _kept
from parrot_integrations.planning.context import current_plan
from parrot_integrations.semantic_kernel import ParrotChatCompletion, ParrotPlanFilter
from parrot_integrations.semantic_kernel.invocations import current_place
from tests.helpers.scripted_server import ScriptedServer

FORMATS = ("semantic-kernel", "handlebars", "jinja2")
NOWHERE = "http://127.0.0.1:9"


def chat(url: str, **fields: Any) -> ParrotChatCompletion:
    return ParrotChatCompletion(host=url, **{"service_id": "default", **fields})


def kernel_of(url: str = NOWHERE, *, is_planned: bool = True, **options: Any) -> Kernel:
    """A kernel with a chat service."""
    kernel = Kernel(services=chat(url))
    if is_planned:
        kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter(**options))
    return kernel


def add(
    kernel: Kernel,
    name: str,
    template: str,
    template_format: Any = "semantic-kernel",
    *,
    plugin: str = "w",
    inputs: Iterable[InputVariable] = (),
    settings: Any = None,
    **config: Any,
) -> KernelFunction:
    """Add a prompt function to a kernel."""
    made = KernelFunctionFromPrompt(
        function_name=name,
        plugin_name=plugin,
        template_format=template_format,
        prompt_template_config=PromptTemplateConfig(
            name=name,
            template=template,
            template_format=template_format,
            input_variables=list(inputs),
            **config,
        ),
        prompt_execution_settings=settings,
    )
    added = kernel.add_function(plugin, made)
    assert isinstance(added, KernelFunction)
    return added


def trusted(*names: str) -> list[InputVariable]:
    """Inputs that may be lists and the like."""
    return [InputVariable(name=name, allow_dangerously_set_content=True) for name in names]


def arguments(**values: Any) -> KernelArguments:
    return KernelArguments(**values)


def plain(value: Any) -> Any:
    """A result without what differs between any two runs."""
    if isinstance(value, FunctionResult):
        return plain(value.value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, ChatMessageContent):
        return (value.role.value, value.content, str(value.finish_reason))
    if isinstance(value, TextContent):
        return value.text
    return value


def failure(error: BaseException) -> tuple[str, ...]:
    """The classes of an error and its causes."""
    kinds: list[str] = []
    one: BaseException | None = error
    while one is not None:
        kinds.append(type(one).__name__)
        one = one.__cause__
    return tuple(kinds)


async def outcome(kernel: Kernel, function: KernelFunction, **values: Any) -> Any:
    try:
        return plain(await kernel.invoke(function, arguments(**values)))
    except Exception as exc:  # noqa: BLE001 - errors are compared, too
        return failure(exc)


async def streamed(kernel: Kernel, function: KernelFunction, **values: Any) -> str:
    pieces: list[str] = []
    async for item in kernel.invoke_stream(function, arguments(**values)):
        assert isinstance(item, list)
        assert all(isinstance(one, StreamingContentMixin) for one in item)
        pieces.append(str(item[0]))
    return "".join(pieces)


async def settle(server: ScriptedServer) -> None:
    """Nothing is left on the server, and no plan is in force."""
    # Generators within one that was closed are closed by the loop, one after the other.
    for _ in range(20):
        await asyncio.sleep(0)
    await close_clients()
    assert current_plan.get() is None
    assert current_place.get() is None
    assert background().settle(10)
    server.wait_until_idle()
    server.wait_until_empty()


async def close_clients() -> None:
    """Close what loops do not close at their end, once nest_asyncio is applied."""
    for _, keeper in list(_kept.get(asyncio.get_running_loop(), {}).values()):
        await keeper.aclose()
