"""Tools, message heads, reasoning and what else is told of an output, through the core."""

from __future__ import annotations

import pytest

from parrot_backend.core.attempts import prefix_seed
from parrot_backend.core.chat import (
    NO_CHAT,
    ChatOptions,
    MessageHead,
    OutputDetails,
    Tool,
    ToolCall,
)
from parrot_backend.core.commands import (
    Command,
    FillPrefix,
    ResetStream,
    RetainPrefix,
    StartRequest,
    StreamText,
)
from parrot_backend.core.config import CoreConfig, EarlyFillConfig
from parrot_backend.core.events import (
    CallSpec,
    EngineInfo,
    RequestFinished,
    RequestUsage,
    TokensGenerated,
)
from parrot_backend.core.ids import EngineId, WaiterId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import prefix_chain
from parrot_backend.core.prompt import PartKind, PromptPart, Role, Segment, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.tool_support import check_tools
from parrot_backend.errors import RequestError
from tests.helpers.builders import (
    SESSION,
    make_engine,
    make_wanted,
    read,
    request_id,
    var,
    write,
)
from tests.helpers.core_driver import CoreDriver

LOOK = Tool("look", "Look.", "{}")
HI = PromptPart(PartKind.CONSTANT, "hi")


def seed_of(chat: ChatOptions) -> str:
    request = Request(
        id=request_id("x"),
        inputs=(),
        output=var("x"),
        session=SESSION,
        tenant="default",
        model="m",
        segments=(),
        sampling=Sampling(),
        chat=chat,
    )
    return prefix_seed(request)


def hash_of(*parts: PromptPart) -> bytes:
    return prefix_chain("seed", parts, 1.0)[-1].hash


def test_prompts_with_other_tools_share_no_prefix():
    seeds = {
        seed_of(chat)
        for chat in (
            NO_CHAT,
            ChatOptions((LOOK,)),
            ChatOptions((Tool("look", "Look.", '{"type": "object"}'),)),
            ChatOptions((Tool("look", "See.", "{}"),)),
            ChatOptions((LOOK, Tool("wait", "", "{}"))),
            ChatOptions(template_kwargs=(("deep", True),)),
            ChatOptions(template_kwargs=(("deep", False),)),
        )
    }

    assert len(seeds) == 7


def test_whether_a_tool_must_be_called_is_not_in_the_prompt():
    seeds = {
        seed_of(ChatOptions((LOOK,), choice, parallel))
        for choice in ("auto", "none", "required")
        for parallel in (True, False)
    }

    assert len(seeds) == 1


def test_the_order_of_template_arguments_does_not_matter():
    orders = (("a", 1), ("b", 2)), (("b", 2), ("a", 1))

    assert len({seed_of(ChatOptions(template_kwargs=order)) for order in orders}) == 1


def test_message_heads_are_part_of_the_prefix():
    calls = (ToolCall("c", "look", "{}"),)
    heads = [
        MessageHead(),
        MessageHead(name="Ada"),
        MessageHead(tool_calls=calls),
        MessageHead(tool_calls=(ToolCall("c", "look", '{"a": 1}'),)),
        MessageHead(tool_call_id="c"),
        MessageHead(name="c"),
    ]
    hashes = {hash_of(PromptPart(PartKind.ROLE, "user", head=head), HI) for head in heads}

    assert len(hashes) == len(heads)
    assert hash_of(PromptPart(PartKind.ROLE, "user", head=heads[0]), HI) == hash_of(
        PromptPart(PartKind.ROLE, "user"), HI
    )


def test_calls_count_for_the_length_of_a_prompt():
    calls = (ToolCall("c", "look", "x" * 500),)
    part = PromptPart(PartKind.ROLE, "assistant", head=MessageHead(tool_calls=calls))

    assert prefix_chain("seed", (part, HI), 1.0)[-1].tokens > 500


def engine(finds_tool_calls: bool) -> EngineInfo:
    return EngineInfo(EngineId("e"), ("m",), 100, 1_000, 500, 4, finds_tool_calls=finds_tool_calls)


@pytest.mark.parametrize(
    ("chat", "can", "is_refused"),
    [
        (ChatOptions((LOOK,)), [False], True),
        (ChatOptions((LOOK,)), [False, True], False),
        (ChatOptions((LOOK,)), [], False),
        (ChatOptions((LOOK,), "required"), [False], False),
        (ChatOptions((LOOK,), "none"), [False], False),
        (NO_CHAT, [False], False),
    ],
)
def test_a_free_choice_needs_an_engine_that_finds_calls(
    chat: ChatOptions, can: list[bool], is_refused: bool
):
    infos = [engine(one) for one in can]
    if not is_refused:
        check_tools(chat, infos)
        return
    with pytest.raises(RequestError) as caught:
        check_tools(chat, infos)
    assert caught.value.code == "tools_unsupported"


@pytest.mark.parametrize(
    ("details", "hides"),
    [
        (OutputDetails(), False),
        (OutputDetails(logprobs=()), False),
        (OutputDetails(reasoning="Hm"), True),
        (OutputDetails((ToolCall("c", "look", "{}"),)), True),
    ],
)
def test_whether_more_was_generated_than_the_value(details: OutputDetails, hides: bool):
    assert details.hides_text is hides


# --- through the coordinator --------------------------------------------------------------------

CHAT = ChatOptions((LOOK,))


def chat_call(name: str, *segments: Segment, chat: ChatOptions = CHAT) -> CallSpec:
    parts = (Role("user"), *segments, Role("assistant"), write(name))
    return CallSpec(name, parts, chat=chat)


def finish(driver: CoreDriver, output: str, text: str, details: OutputDetails) -> list[Command]:
    event = RequestFinished(
        driver.attempt(output), text, None, "stop", RequestUsage(5, 5), details=details
    )
    return driver.send(event)


def think(driver: CoreDriver, output: str, text: str) -> list[Command]:
    return driver.send(TokensGenerated(driver.attempt(output), text, 1, is_reasoning=True))


def test_reasoning_goes_to_who_streams_and_a_retry_forgets_it():
    driver = CoreDriver()
    driver.join(make_engine("a"))
    driver.join(make_engine("b"))
    driver.submit(chat_call("x", Text("hi")), wanted=[make_wanted("x", waiter="w", stream=True)])

    assert StreamText(WaiterId("w"), "Hm", is_reasoning=True) in think(driver, "x", "Hm")
    assert driver.variable("x").partial_reasoning == ["Hm"]

    engine = driver.request("x").engine
    assert engine is not None
    said = driver.lose(engine)
    assert ResetStream(WaiterId("w")) in said
    assert driver.variable("x").partial_reasoning == []


def test_an_answer_holds_the_details():
    driver = CoreDriver()
    driver.join(make_engine())
    driver.submit(chat_call("x", Text("hi")), wanted=[make_wanted("x", waiter="w")])
    details = OutputDetails((ToolCall("c", "look", "{}"),), "Hm")
    finish(driver, "x", "", details)

    assert driver.answer("w").details == details
    assert driver.variable("x").details == details


def test_details_count_as_text_of_the_session():
    driver = CoreDriver()
    driver.join(make_engine())
    driver.submit(chat_call("x", Text("hi")))
    finish(driver, "x", "abc", OutputDetails((ToolCall("c", "look", "{}"),), "Hm"))

    graph = next(iter(driver.coordinator.sessions)).graph
    assert graph.text_chars == len("abc") + len("look") + len("{}") + len("Hm")


def test_commands_carry_how_the_chat_is_put():
    config = CoreConfig(early_fill=EarlyFillConfig(is_on=True, min_tokens=1))
    driver = CoreDriver(config=config)
    driver.join(make_engine(keeps_prefixes=True))
    said = driver.submit(
        chat_call("x", Text("hi"), chat=NO_CHAT),
        chat_call("y", Text("known " * 50), Text("and more " * 50), read("x")),
    )

    (start,) = [c for c in said if isinstance(c, StartRequest)]
    (fill,) = [c for c in said if isinstance(c, FillPrefix)]
    assert (start.chat, fill.chat) == (NO_CHAT, CHAT)
    assert [c.chat for c in driver.finish("x") if isinstance(c, StartRequest)] == [CHAT]


@pytest.mark.parametrize("hides", [False, True])
def test_what_hides_text_is_not_believed_to_go_on_from_its_value(hides: bool):
    """Who reads the value has another prompt than prompt and output of the engine."""
    driver = CoreDriver()
    driver.join(make_engine(keeps_prefixes=True))
    text = Text("word " * 100)
    driver.submit(
        CallSpec("c", (Role("user"), text, Role("assistant"), write("x"), Text("!"), write("y")))
    )
    said = finish(driver, "x", "Yes " * 50, OutputDetails(reasoning="Hm" if hides else None))

    retained = [c for c in said if isinstance(c, RetainPrefix) and c.attempt is not None]
    assert bool(retained) is not hides
