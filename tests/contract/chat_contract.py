"""What every engine does with tools, forms of outputs and log probabilities."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parrot_backend.core.chat import (
    ChatOptions,
    MessageHead,
    NamedTool,
    ResponseFormat,
    Tool,
    ToolCall,
    ToolChoice,
)
from parrot_backend.core.prompt import PartKind, PromptPart
from tests.contract.driver import Attempt, EngineDriver, check_same, constant, role, value

#: Bounded, so that any model comes to an end.
LOOK = Tool(
    "look",
    "Look somewhere.",
    json.dumps(
        {
            "type": "object",
            "properties": {
                "where": {"type": "string", "enum": ["sea", "sky"]},
                "far": {"type": "boolean"},
            },
            "required": ["where", "far"],
            "additionalProperties": False,
        }
    ),
)
WAIT = Tool("wait", "", '{"type": "object", "properties": {}, "additionalProperties": false}')

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "big": {"type": "boolean"}},
    "required": ["colour", "big"],
    "additionalProperties": False,
}

QUESTION = (role("system"), constant("Be brief."), role("user"), value("What is there?"))


def chat_options(choice: ToolChoice = "auto", *tools: Tool, parallel: bool = False) -> ChatOptions:
    return ChatOptions(tools or (LOOK,), choice, parallel)


def message(role: str, **fields: Any) -> PromptPart:
    return PromptPart(PartKind.ROLE, role, head=MessageHead(**fields))


async def ask(
    driver: EngineDriver,
    chat: ChatOptions,
    prompt: tuple[PromptPart, ...] = QUESTION,
    **sampling: Any,
) -> Attempt:
    return await driver.run(prompt, hints={"chat": chat}, **{"max_tokens": 200, **sampling})


def check_look(call: ToolCall) -> None:
    assert call.id
    assert call.name == "look"
    arguments = json.loads(call.arguments)
    assert set(arguments) == {"where", "far"}
    assert arguments["where"] in ("sea", "sky")
    assert isinstance(arguments["far"], bool)


class ChatContract:
    """A part of ``EngineContract``."""

    # --- tools ---------------------------------------------------------------------------------

    async def test_a_required_call_is_made(self, driver: EngineDriver):
        attempt = await ask(driver, chat_options("required"))
        (call,) = attempt.finished.details.tool_calls
        check_look(call)
        assert attempt.finished.text == attempt.streamed == ""
        assert attempt.finished.finish_reason == "tool_calls"
        assert attempt.finished.token_ids is None

    async def test_the_named_tool_is_called(self, driver: EngineDriver):
        attempt = await ask(driver, chat_options(NamedTool("look"), WAIT, LOOK))
        (call,) = attempt.finished.details.tool_calls
        check_look(call)
        assert attempt.finished.finish_reason == "tool_calls"
        assert attempt.streamed == attempt.finished.text == ""

    @pytest.mark.parametrize("choice", ["auto", "none"])
    async def test_text_stays_text(self, driver: EngineDriver, choice: ToolChoice):
        attempt = await ask(driver, chat_options(choice), max_tokens=20)
        assert attempt.finished.details.tool_calls == ()
        assert attempt.finished.text
        assert attempt.streamed == attempt.finished.text
        assert attempt.finished.finish_reason in ("stop", "length")

    async def test_a_cut_call_is_told_with_its_reason(self, driver: EngineDriver):
        attempt = await ask(driver, chat_options(NamedTool("look")), max_tokens=1)
        assert attempt.finished.finish_reason == "length"
        assert attempt.streamed == attempt.finished.text

    async def test_tools_are_part_of_the_prompt(self, driver: EngineDriver):
        plain = await driver.run(QUESTION, max_tokens=1)
        known = await ask(driver, chat_options("none"), max_tokens=1)
        tokens = [one.finished.usage.prompt_tokens for one in (plain, known)]
        assert tokens[0] < tokens[1]

    async def test_a_history_of_calls_is_part_of_the_prompt(self, driver: EngineDriver):
        texts = {
            (await ask(driver, chat_options("none"), history, ignore_eos=True)).finished.text
            for history in (answered('{"where": "sea", "far": true}'), answered('{"where": "sky"}'))
        }
        assert len(texts) == 2

    async def test_arguments_that_are_no_json_break_nothing(self, driver: EngineDriver):
        attempt = await ask(driver, chat_options("none"), answered("{no"), max_tokens=5)
        assert attempt.finished.text

    @pytest.mark.parametrize("max_tokens", [1, 9, 200])
    @pytest.mark.parametrize("choice", ["auto", "none", "required", NamedTool("look")])
    async def test_quiet_requests_make_the_same_calls(
        self, driver: EngineDriver, choice: ToolChoice, max_tokens: int
    ):
        prompt, how = QUESTION, {"max_tokens": max_tokens}
        chat = chat_options(choice, WAIT, LOOK)
        talking = await driver.run(prompt, hints={"chat": chat}, **how)
        quiet = await driver.run(prompt, hints={"chat": chat, "quiet": True}, **how)
        check_same(quiet, talking)

    # --- forms of outputs ------------------------------------------------------------------------

    async def test_a_schema_is_kept_to(self, driver: EngineDriver):
        wanted = ResponseFormat("json_schema", json.dumps(SCHEMA))
        attempt = await driver.run("describe it", max_tokens=60, response_format=wanted)
        found = json.loads(attempt.finished.text)
        assert set(found) == {"colour", "big"}
        assert found["colour"] in ("red", "blue")
        assert attempt.finished.finish_reason == "stop"
        assert attempt.streamed == attempt.finished.text

    async def test_a_choice_is_made(self, driver: EngineDriver):
        wanted = ResponseFormat("choice", json.dumps(["yes, of course", "no"]))
        attempt = await driver.run("may I?", response_format=wanted)
        assert attempt.finished.text in ("yes, of course", "no")

    async def test_a_form_ends_where_it_ends(self, driver: EngineDriver):
        wanted = ResponseFormat("choice", '["left", "right"]')
        attempt = await driver.run("where?", response_format=wanted, ignore_eos=True)
        assert attempt.finished.text in ("left", "right")

    async def test_a_pattern_is_matched(self, driver: EngineDriver):
        attempt = await driver.run("say it", response_format=ResponseFormat("regex", "fine"))
        assert attempt.finished.text == "fine"

    async def test_an_object_is_begun(self, driver: EngineDriver):
        wanted = ResponseFormat("json_object")
        attempt = await driver.run("an object", max_tokens=30, response_format=wanted)
        assert attempt.finished.text.lstrip().startswith("{")

    async def test_a_chat_with_a_form_is_answered(self, driver: EngineDriver):
        wanted = ResponseFormat("choice", '["up", "down"]')
        attempt = await driver.run(QUESTION, response_format=wanted)
        assert attempt.finished.text in ("up", "down")

    @pytest.mark.parametrize(
        "wanted",
        [
            ResponseFormat("json_schema", '{"type": "no such type"}'),
            ResponseFormat("json_schema", '{"$ref": "#/$defs/missing"}'),
            ResponseFormat("grammar", "root ::= ((("),
        ],
        ids=["type", "reference", "grammar"],
    )
    async def test_a_bad_form_fails_alone(self, driver: EngineDriver, wanted: ResponseFormat):
        other = driver.start("beside it", max_tokens=50)
        bad = await driver.run("formed badly", response_format=wanted)
        await driver.terminal(other)
        assert bad.failed.code == "invalid_format"
        assert not bad.failed.is_retryable
        assert bad.failed.message
        assert other.finished.text
        assert (await driver.run("still alive")).finished.text

    # --- log probabilities -----------------------------------------------------------------------

    @pytest.mark.parametrize("num_top", [0, 3])
    async def test_logprobs_are_told(self, driver: EngineDriver, num_top: int):
        attempt = await driver.run("how likely", logprobs=num_top, ignore_eos=True)
        logprobs = attempt.finished.details.logprobs
        assert logprobs is not None
        assert len(logprobs) == attempt.finished.usage.completion_tokens == 12
        assert "".join(one.token for one in logprobs) == attempt.finished.text
        for one in logprobs:
            assert one.logprob <= 0
            assert len(one.top) == num_top
            told = [top.logprob for top in one.top]
            assert told == sorted(told, reverse=True)
        if num_top:
            assert all(one.top[0].token == one.token for one in logprobs)  # greedy

    async def test_logprobs_leave_out_what_only_ends_the_text(self, driver: EngineDriver):
        wanted = ResponseFormat("choice", '["left", "right"]')
        attempt = await driver.run("where to?", logprobs=0, response_format=wanted)
        logprobs = attempt.finished.details.logprobs
        assert logprobs is not None
        assert "".join(one.token for one in logprobs) == attempt.finished.text

    async def test_without_being_asked_nothing_is_told(self, driver: EngineDriver):
        details = (await driver.run("how likely")).finished.details
        assert details.logprobs is None
        assert details.reasoning is None


def answered(arguments: str) -> tuple[PromptPart, ...]:
    """Return a chat with a call of a tool and its answer."""
    calls = (ToolCall("c1", "look", arguments),)
    return (
        *QUESTION,
        message("assistant", tool_calls=calls),
        message("tool", tool_call_id="c1", name="look"),
        value("a ship"),
    )
