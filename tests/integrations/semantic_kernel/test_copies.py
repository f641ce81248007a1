"""Arguments that a template may change, or through which it may run code of the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent
from semantic_kernel.functions import FunctionResult, KernelArguments, kernel_function
from semantic_kernel.prompt_template import PromptTemplateConfig

from parrot_integrations.semantic_kernel import ParrotPipeline, plan_function, watch_plans
from parrot_integrations.semantic_kernel.copies import copied
from tests.helpers.scripted_server import ScriptedServer
from tests.integrations.semantic_kernel import orchestra
from tests.integrations.semantic_kernel.kernel_kit import (
    add,
    arguments,
    chat,
    kernel_of,
    outcome,
    settle,
    streamed,
    trusted,
)

pytestmark = pytest.mark.e2e


class Own:
    """Its text is another each time."""

    def __init__(self) -> None:
        self.num_texts = 0

    def __str__(self) -> str:
        self.num_texts += 1
        return f"own {self.num_texts}"

    @kernel_function
    def value(self) -> str:
        return "value"


def history(*texts: str) -> ChatHistory:
    found = ChatHistory()
    for text in texts:
        found.add_user_message(text)
    return found


def said(found: ChatHistory) -> list[str]:
    return [message.content for message in found.messages]


ADDS = "{% set _ = h.add_user_message('more') %}{{ w_s(input='x') }} {{ h.messages|length }}"
REMOVES = (
    "{{ w_s(input='x') }}{% set _ = h.remove_message(h.messages[0]) %} {{ h.messages|length }}"
)
DEEP = (
    "{% set _ = h.messages[0].metadata.log.add_user_message('more') %}"
    "{{ w_s(input='x') }} {{ h.messages[0].metadata.log.messages|length }}"
)


@pytest.mark.parametrize("run", [outcome, streamed])
@pytest.mark.parametrize("template", [ADDS, REMOVES, DEEP])
async def test_a_template_changes_a_history_once(
    server: ScriptedServer, template: str, run: Callable[..., Any]
) -> None:
    results = []
    for is_planned in (False, True):
        found = kernel_of(server.url, is_planned=is_planned)
        add(found, "s", "Say {{$input}}", inputs=trusted("h"))
        made = add(found, "f", template, "jinja2", inputs=trusted("h"))
        given, log = history("one", "two"), history()
        given.messages[0].metadata["log"] = log
        with watch_plans() as plans:
            results.append((await run(found, made, h=given), said(given), said(log)))
    await settle(server)
    assert results[0] == results[1]
    assert plans[0].report().num_claimed == 2


async def test_functions_that_share_a_history_do_so_in_the_plan(server: ScriptedServer) -> None:
    results = []
    for is_planned in (False, True):
        found = kernel_of(server.url, is_planned=False)
        add(found, "s", "Say {{$input}}", inputs=trusted("h"))
        made = add(found, "f", ADDS, "jinja2", inputs=trusted("h"))
        given = KernelArguments(h=history("one"))
        with watch_plans() as plans:
            if is_planned:
                result = await ParrotPipeline([made, made]).invoke(found, given)
            else:
                await found.invoke(made, given)
                result = await found.invoke(made, given)
        results.append((str(result), said(given["h"])))
    await settle(server)
    assert results[0] == results[1]
    assert plans[0].report().num_claimed == 4


async def test_a_plan_alone_changes_nothing() -> None:
    found = kernel_of()
    add(found, "s", "Say {{$input}}", inputs=trusted("h"))
    made = add(found, "f", ADDS, "jinja2", inputs=trusted("h"))
    given = history("one")
    plan = await plan_function(found, made, KernelArguments(h=given))
    assert plan.report().num_planned == 2
    assert said(given) == ["one"]


def test_instructions_of_agents_change_a_history_once(server: ScriptedServer) -> None:
    async def run(classes: Any) -> Any:
        shared = history("one")
        config = PromptTemplateConfig(
            template="{% set _ = h.add_user_message('more') %}You {{ h.messages|length }}",
            template_format="jinja2",
            input_variables=trusted("h"),
        )
        members = [
            ChatCompletionAgent(
                service=chat(server.url),
                name=name,
                description="d",
                arguments=KernelArguments(h=shared),
                prompt_template_config=config,
            )
            for name in ("a", "b")
        ]
        made = orchestra.build(classes, "sequential", members, orchestra.Heard(), 2)
        with watch_plans() as plans:
            result = orchestra.texts(await orchestra.run(made))
        return result, said(shared), [plan.report().num_claimed for plan in plans]

    plain = orchestra.execute(run(orchestra.PLAIN))
    planned = orchestra.execute(run(orchestra.PLANNED))
    assert planned == (*plain[:2], [2])


def result_of(value: Any, **metadata: Any) -> FunctionResult:
    function = kernel_of().add_plugin(Own(), "n")["value"]
    return FunctionResult(function=function.metadata, value=value, metadata=metadata)


def message(**fields: Any) -> ChatMessageContent:
    return ChatMessageContent(role=AuthorRole.USER, content="x", **fields)


@pytest.mark.parametrize(
    "make",
    [
        lambda: result_of(Own()),
        lambda: result_of([message(inner_content=Own())]),
        lambda: result_of(iter("abc")),
        lambda: result_of("x", arguments=KernelArguments(input=Own())),
        lambda: message(inner_content=Own()),
        lambda: message(metadata={"x": [Own()]}),
        lambda: ChatHistory(messages=[message(inner_content=Own())]),
        lambda: {"x": {Own()}},
    ],
)
async def test_what_holds_something_of_the_programs_is_not_planned(
    make: Callable[[], Any],
) -> None:
    found = kernel_of()
    add(found, "s", "Say {{$input}}")
    made = add(found, "f", "{{w.s}} {{w.s}}", inputs=trusted("input"))
    plan = await plan_function(found, made, arguments(input=make()))
    (note,) = plan.report().cuts
    assert "argument input is, or holds, what is of the program's own" in note.why


async def test_results_of_the_kernel_are_planned(server: ScriptedServer) -> None:
    found = kernel_of(server.url)
    add(found, "s", "Say {{$input}}", inputs=trusted("input"))
    made = add(found, "f", "{{w.s}} {{w.s}}", inputs=trusted("input"))
    first = await found.invoke(made, arguments(input="x"))
    native = await found.invoke(found.add_plugin(Own(), "n")["value"])
    for given in (first, native):
        plan = await plan_function(found, made, arguments(input=given))
        assert plan.report().num_planned == 3, str(plan.report())
    await settle(server)


def test_copies_share_what_is_not_copied() -> None:
    given = KernelArguments(h=history("one"), r=result_of("x"))
    known: dict[int, Any] = {}
    one, other = copied(given, known), copied(given, known)
    assert one["h"] is other["h"]
    assert one["h"] is not given["h"]
    assert one["r"] is not given["r"]
    assert one["r"].function is given["r"].function
