"""``ParrotLLM`` on a fake server."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ContextOverflowError

import parrot_integrations as P
from parrot_backend.protocol import CallNode
from parrot_integrations.langchain import ParrotLLM
from tests.helpers.fake_parrot import FakeParrot


def test_a_prompt_is_sent_as_it_is(llm: ParrotLLM, fake: FakeParrot) -> None:
    assert llm.invoke("say {{input:x}}", stop=["."]) == "<say {{input:x}}>"
    (node,) = fake.submits[0].nodes
    assert isinstance(node, CallNode)
    assert node.messages is None
    assert node.sampling.stop == (".",)


def test_all_prompts_are_one_submit(llm: ParrotLLM, fake: FakeParrot) -> None:
    assert llm.batch(["a", "b"]) == ["<a>", "<b>"]
    result = llm.generate(["c", "d"], n=2)
    assert [[g.text for g in of] for of in result.generations] == [["<c>"] * 2, ["<d>"] * 2]
    assert [len(submit.nodes) for submit in fake.submits] == [2, 4]
    assert fake.submits[0].outputs[0].criteria == P.THROUGHPUT
    assert fake.submits[1].outputs[0].criteria == P.UNSTATED
    info = result.generations[0][0].generation_info
    assert info is not None
    assert info["finish_reason"] == "stop"
    assert result.llm_output is not None
    assert result.llm_output["token_usage"]["total_tokens"] == 12


async def test_the_async_methods_do_the_same(llm: ParrotLLM, fake: FakeParrot) -> None:
    assert await llm.ainvoke("a") == "<a>"
    assert await llm.abatch(["a", "b"]) == ["<a>", "<b>"]
    assert [text async for text in llm.astream("a b")] == ["<a", " b>", ""]
    assert len(fake.submits) == 3


def test_a_stream_tells_the_callbacks(llm: ParrotLLM) -> None:
    class Heard(BaseCallbackHandler):
        tokens: list[object] = []  # noqa: RUF012 - one test

        def on_llm_new_token(self, token: object, **_: object) -> None:
            self.tokens.append(token)

    assert "".join(llm.stream("a b", {"callbacks": [Heard()]})) == "<a b>"
    assert Heard.tokens == ["<a", " b>", ""]


def test_what_only_chats_have_is_an_error(llm: ParrotLLM) -> None:
    with pytest.raises(ValueError, match="tools: only for chats, use ChatParrot"):
        llm.invoke("a", tools=[])
    with pytest.raises(ValueError, match="unknown parameters best_of"):
        llm.invoke("a", best_of=2)
    with pytest.raises(ValueError, match="n must be 1 to stream"):
        list(llm.stream("a", n=2))


def test_errors_are_langchain_s(llm: ParrotLLM, fake: FakeParrot) -> None:
    def generate(prompt: str) -> str:
        raise ValueError("prompt_too_long")

    fake.generate = generate
    with pytest.raises(ContextOverflowError):
        llm.invoke("a")


def test_ten_thousand_prompts_are_a_few_submits_and_stay_in_order(
    llm: ParrotLLM, fake: FakeParrot
) -> None:
    prompts: list[Any] = [f"p{i}" for i in range(10_000)]
    assert llm.batch(prompts) == [f"<{prompt}>" for prompt in prompts]
    assert len(fake.submits) == 10
    assert max(len(submit.nodes) for submit in fake.submits) <= 1_000


def test_what_a_model_says_of_itself(llm: ParrotLLM) -> None:
    assert llm._llm_type == "parrot-llm"
    params = llm._get_ls_params()
    assert (params["ls_provider"], params["ls_model_name"]) == ("parrot", "default")


async def test_the_prompts_of_a_batch_fail_each_for_itself(
    llm: ParrotLLM, fake: FakeParrot
) -> None:
    def generate(prompt: str) -> str:
        if prompt == "bad":
            raise ValueError("prompt_too_long")
        return prompt

    fake.generate = generate
    found: list[Any] = llm.batch(["a", "bad", "b"], return_exceptions=True)
    assert (found[0], found[2]) == ("a", "b")
    assert isinstance(found[1], ContextOverflowError)
    found = await llm.abatch(["a", "bad", "b"], return_exceptions=True)
    assert (found[0], found[2]) == ("a", "b")
    assert [len(submit.nodes) for submit in fake.submits] == [3, 3]
    with pytest.raises(ContextOverflowError):
        llm.batch(["a", "bad", "b"])
