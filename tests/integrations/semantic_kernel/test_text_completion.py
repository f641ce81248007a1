"""``ParrotTextCompletion`` on a fake server: what is sent, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.exceptions import (
    ServiceInvalidExecutionSettingsError,
    ServiceInvalidRequestError,
)
from semantic_kernel.functions import KernelArguments

import parrot_integrations as P
from parrot_backend.protocol import CallNode, OutputSegment, TextSegment
from parrot_integrations.semantic_kernel import (
    ParrotTextCompletion,
    ParrotTextPromptExecutionSettings,
)
from tests.helpers.fake_parrot import FakeParrot

Settings = ParrotTextPromptExecutionSettings


def last_node(fake: FakeParrot) -> CallNode:
    (node,) = fake.submits[-1].nodes
    assert isinstance(node, CallNode)
    return node


async def stream(text: ParrotTextCompletion, prompt: str, settings: Any) -> list[Any]:
    chunks = text.get_streaming_text_contents(prompt, settings)
    return [chunk async for (chunk,) in chunks]


@pytest.mark.parametrize(
    "settings", [Settings(temperature=0), PromptExecutionSettings(temperature=0)]
)
async def test_the_exact_call(
    custom_client: P.AsyncParrotClient, fake: FakeParrot, model_id: str, prompt: str, settings: Any
) -> None:
    text = ParrotTextCompletion(model_id, client=custom_client)
    reply = await text.get_text_content(prompt, settings)
    assert str(reply) == f"<{prompt}>"
    assert last_node(fake) == CallNode(
        name="call-0",
        model=model_id,
        prompt=(TextSegment(text=prompt), OutputSegment(variable="reply-0")),
        sampling=P.Sampling(temperature=0),
    )
    pieces = await stream(text, prompt, settings)
    assert "".join(map(str, pieces)) == f"<{prompt}>"
    assert pieces[-1].metadata["finish_reason"] == "stop"
    (call,), terms = text.foresee(prompt, settings)
    assert call.to_node("call-0", "reply-0") == last_node(fake)
    assert terms.metadata == fake.submits[-1].metadata == {}


async def test_several_replies_are_one_submit(
    text: ParrotTextCompletion, fake: FakeParrot, prompt: str
) -> None:
    replies = await text.get_text_contents(prompt, Settings(number_of_responses=2))
    assert [str(reply) for reply in replies] == [f"<{prompt}>"] * 2
    assert len(fake.submits) == 1
    with pytest.raises(ServiceInvalidExecutionSettingsError, match="number_of_responses"):
        await stream(text, prompt, Settings(number_of_responses=2))


async def test_a_failure_of_one_reply_is_the_framework_s(
    text: ParrotTextCompletion, fake: FakeParrot
) -> None:
    def refuse(prompt: str) -> str:
        raise ValueError("prompt_too_long")

    fake.generate = refuse
    with pytest.raises(ServiceInvalidRequestError) as caught:
        await text.get_text_contents("a", Settings(number_of_responses=2))
    assert isinstance(caught.value, P.ValueFailed)
    with pytest.raises(ServiceInvalidRequestError):
        await stream(text, "a", Settings())


@pytest.mark.parametrize("settings", [{}, {"number_of_responses": 2}, {"session": "\ud800"}])
async def test_a_text_that_is_no_unicode_is_the_framework_s_error(
    text: ParrotTextCompletion, settings: dict[str, Any]
) -> None:
    prompt = "a" if "session" in settings else "\ud800"
    with pytest.raises(ServiceInvalidRequestError, match="lone surrogate") as caught:
        await text.get_text_contents(prompt, Settings(**settings))
    assert isinstance(caught.value, P.RequestRejected)
    if settings != {"number_of_responses": 2}:
        with pytest.raises(ServiceInvalidRequestError, match="lone surrogate"):
            await stream(text, prompt, Settings(**settings))


async def test_a_wrong_setting_is_the_framework_s_error(text: ParrotTextCompletion) -> None:
    wrong = PromptExecutionSettings(temperature=3)
    with pytest.raises(ServiceInvalidExecutionSettingsError, match="temperature"):
        await text.get_text_contents("a", wrong)
    with pytest.raises(ServiceInvalidExecutionSettingsError, match="temperature"):
        await stream(text, "a", wrong)


async def test_prompt_functions_of_a_kernel(text: ParrotTextCompletion, fake: FakeParrot) -> None:
    kernel = Kernel(services=[text])
    arguments = KernelArguments(settings=Settings(max_tokens=5), x="y")
    assert str(await kernel.invoke_prompt("say {{$x}}", arguments=arguments)) == "<say y>"
    assert last_node(fake).sampling.max_tokens == 5
    bound = text.with_session(session="s", stage="t")
    await bound.get_text_content("a", Settings(app="p"))
    assert fake.submits[-1].app == "p"
    assert fake.submits[-1].metadata == {"session": "s"}
    assert fake.stages[-1] == "t"
