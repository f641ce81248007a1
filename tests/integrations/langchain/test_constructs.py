"""What each construct of LangChain costs, plain and planned, and the reasons that are given.

One row for each row of the table of rules; the same results and effects are shown for all of them
together by ``test_differential``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import pytest
from langchain_core._api import LangChainDeprecationWarning
from langchain_core.caches import InMemoryCache
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import (
    ConfigurableField,
    RouterRunnable,
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
)
from langchain_core.runnables.history import RunnableWithMessageHistory

from parrot_backend.engines import scripted_reply
from parrot_integrations.langchain import (
    ChatParrot,
    ParrotLLM,
    as_parrot,
    if_contains,
    if_empty,
    join_list,
    json_list,
    repeat_until,
    split_lines,
    split_list,
    traceable_step,
    watch_plans,
)
from parrot_integrations.planning.background import background
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.langchain.recording import plain

pytestmark = pytest.mark.e2e

Chain = Runnable[Any, Any]
text = StrOutputParser()


def chat_prompt(template: str) -> Any:
    return ChatPromptTemplate.from_template(template)


def routed(runnables: dict[str, Chain]) -> Any:
    return RouterRunnable(runnables=runnables)


def prompt(template: str, template_format: Any = "f-string") -> Any:
    return PromptTemplate.from_template(template, template_format=template_format)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with pytest.MonkeyPatch.context() as patch:
        # A plan that foresees the wrong escaping of these is not used, and that is counted.
        patch.setattr(scripted_reply, "WORDS", ("a<b", "&amp;", "it's", "{x}", "plain", "<i>"))
        with scripted_server() as server:
            yield server


@dataclass(frozen=True)
class Parts:
    """Models on a server, and chains of one call."""

    url: str

    @property
    def chat(self) -> Any:
        return ChatParrot(base_url=self.url, temperature=0, max_tokens=6)

    @property
    def llm(self) -> Any:
        return ParrotLLM(base_url=self.url, temperature=0, max_tokens=6)

    def ask(self, template: str) -> Chain:
        chain: Chain = ChatPromptTemplate.from_template(template) | self.chat | text
        return chain


@dataclass(frozen=True)
class Row:
    """One construct.

    Attributes:
        name: Of the row.
        build: Makes the chain.
        plain: Submits without a plan.
        planned: Submits with one, those of calls outside of it included.
        sets: Late-bound values that were set.
        used: Planned calls that the program made.
        wasted: Those that it did not make.
        reason: Part of what the report says.
        value: The input.
        config: Of the run.
    """

    name: str
    build: Callable[[Parts], Chain]
    plain: int
    planned: int = 1
    sets: int = 0
    used: int | None = None
    wasted: int = 0
    reason: str = ""
    value: Any = "bees"
    config: RunnableConfig | None = None


class _Kept(BaseChatMessageHistory):
    def __init__(self, messages: list[BaseMessage]) -> None:
        self.messages = messages

    def clear(self) -> None:
        self.messages.clear()


def _history(parts: Parts) -> Chain:
    kept = _Kept(messages=[])
    past = ChatPromptTemplate([MessagesPlaceholder("past"), ("human", "{q}")])
    with pytest.warns(LangChainDeprecationWarning):
        return RunnableWithMessageHistory(
            past | parts.chat | text,
            lambda session_id: kept,
            input_messages_key="q",
            history_messages_key="past",
        )


def _generator() -> Chain:
    def shout(chunks: Iterator[str]) -> Iterator[str]:
        for chunk in chunks:
            yield chunk.upper()

    return RunnableGenerator(shout)


def _fails_first(times: int) -> Chain:
    seen = []

    def maybe(value: str) -> str:
        seen.append(value)
        if len(seen) <= times:
            raise ValueError("not yet")
        return value

    return RunnableLambda(maybe)


def _raises(value: Any) -> Any:
    raise ValueError("always")


@traceable_step
def _pair(value: str) -> list[str]:
    return [value, f"{value}!"]


ROWS = [
    Row("sequence", lambda p: p.ask("A {x}") | p.ask("B {x}"), 2, used=2),
    Row("sequence of steps", lambda p: RunnableSequence(p.ask("A {x}"), p.ask("B {x}")), 2, used=2),
    Row(
        "parallel",
        lambda p: {"a": p.ask("A {x}"), "b": p.ask("B {x}")} | p.ask("{a} {b}"),
        3,
        used=3,
    ),
    Row(
        "assign",
        lambda p: RunnablePassthrough.assign(o=p.ask("A {x}")) | p.ask("B {x} {o}"),
        2,
        used=2,
        value={"x": "bees"},
    ),
    Row(
        "assign to what Python makes",
        lambda p: (
            RunnableLambda(lambda x: {"x": x})
            | RunnablePassthrough.assign(o=p.ask("A {x}"))
            | p.ask("B {x} {o}")
        ),
        2,
        planned=2,
        sets=0,
        used=1,
        reason="cut         RunnableAssign",
    ),
    Row(
        "passthrough",
        lambda p: p.ask("A {x}") | RunnablePassthrough(print) | p.ask("B {x}"),
        2,
        used=2,
    ),
    Row(
        "pick one",
        lambda p: (
            RunnableParallel(a=p.ask("A {x}"), b=RunnablePassthrough())
            | RunnablePick("a")
            | p.ask("B {x}")
        ),
        2,
        used=2,
    ),
    Row(
        "pick from what Python makes",
        lambda p: (
            p.ask("A {x}")
            | RunnableLambda(lambda x: {"k": x, "l": 1})
            | RunnablePick("k")
            | p.ask("B {x}")
        ),
        2,
        sets=1,
        used=2,
        reason="late-bound",
    ),
    Row(
        "itemgetter",
        lambda p: RunnablePassthrough.assign(o=p.ask("A {x}")) | itemgetter("o") | p.ask("B {x}"),
        2,
        used=2,
        value={"x": "bees"},
    ),
    Row(
        "function",
        lambda p: p.ask("A {x}") | RunnableLambda(str.upper) | p.ask("B {x}"),
        2,
        sets=1,
        used=2,
        reason="a Python function",
    ),
    Row(
        "function at the start",
        lambda p: RunnableLambda(str.upper) | p.ask("A {x}") | p.ask("B {x}"),
        2,
        used=2,
    ),
    Row(
        "function at the end",
        lambda p: p.ask("A {x}") | p.ask("B {x}") | RunnableLambda(str.upper),
        2,
        used=2,
    ),
    Row(
        "traceable function",
        lambda p: (
            p.ask("A {x}") | RunnableLambda(traceable_step(lambda x: f"<{x}>")) | p.ask("B {x}")
        ),
        2,
        used=2,
    ),
    Row(
        "traceable function that looks",
        lambda p: (
            p.ask("A {x}") | RunnableLambda(traceable_step(lambda x: x.title())) | p.ask("B {x}")
        ),
        2,
        sets=1,
        used=2,
        reason="title of a generated value",
    ),
    Row(
        "function that returns a chain",
        lambda p: p.ask("A {x}") | RunnableLambda(lambda _: p.ask("B {x}")) | p.ask("C {x}"),
        3,
        planned=2,
        sets=1,
        used=2,
        reason="a Python function",
    ),
    Row(
        "traceable function that returns a chain",
        lambda p: (
            p.ask("A {x}")
            | RunnableLambda(traceable_step(lambda _: p.ask("B {x}")))
            | p.ask("C {x}")
        ),
        3,
        used=3,
    ),
    Row(
        "function that makes a mapping",
        lambda p: (
            p.ask("A {x}") | RunnableLambda(lambda x: {"u": x, "v": "w"}) | p.ask("{u} and {v}")
        ),
        2,
        sets=2,
        used=2,
        reason="late-bound",
    ),
    Row(
        "generator",
        lambda p: p.ask("A {x}") | _generator() | p.ask("B {x}"),
        2,
        sets=1,
        used=2,
        reason="late-bound  shout: it runs on the client",
    ),
    Row(
        "map over a known list",
        lambda p: p.ask("A {x}").map() | join_list() | p.ask("B {x}"),
        2,
        used=4,
        value=["1", "2", "3"],
    ),
    Row(
        "map over a list that Python makes",
        lambda p: (
            p.ask("A {x}")
            | RunnableLambda(str.split)
            | p.ask("B {x}").map()
            | join_list()
            | p.ask("C {x}")
        ),
        3,
        planned=2,
        sets=1,
        used=2,
        reason="a list of unknown length that Python makes; see split_lines()",
    ),
    Row(
        "map over lines",
        lambda p: (
            p.ask("A {x}") | split_lines() | p.ask("B {x}").map() | join_list() | p.ask("C {x}")
        ),
        3,
        used=3,
    ),
    Row(
        "map over words",
        lambda p: (
            p.ask("A {x}")
            | split_list(" ")
            | p.ask("B {x}").map()
            | join_list("; ", "<{}>")
            | p.ask("C {x}")
        ),
        3,
        used=8,
    ),
    Row(
        "map over JSON",
        lambda p: (
            p.ask("A {x}")
            | RunnableLambda(traceable_step(lambda x: f'["{x}", 2]'))
            | json_list()
            | p.ask("B {x}").map()
            | join_list()
            | p.ask("C {x}")
        ),
        3,
        used=4,
    ),
    Row(
        "list of the client split on the server",
        lambda p: (
            RunnableLambda(str.upper)
            | split_list("E")
            | p.ask("B {x}").map()
            | join_list()
            | p.ask("C {x}")
        ),
        2,
        planned=2,
        used=1,
        reason="depends on a text that is made on the client",
    ),
    Row(
        "bind and with_config",
        lambda p: (
            p.ask("A {x}")
            | chat_prompt("B {x}")
            | p.chat.bind(stop=["e"], max_tokens=4).with_config(tags=["t"])
            | text
        ),
        2,
        used=2,
    ),
    Row(
        "configurable fields",
        lambda p: (
            p.ask("A {x}")
            | chat_prompt("B {x}")
            | p.chat.configurable_fields(max_tokens=ConfigurableField("size"))
            | text
        ),
        2,
        used=2,
        config={"configurable": {"size": 3}},
    ),
    Row(
        "configurable alternatives",
        lambda p: (
            p.ask("A {x}")
            | chat_prompt("B {x}")
            | p.chat.configurable_alternatives(ConfigurableField("which"), raw=p.llm)
            | text
        ),
        2,
        used=2,
        config={"configurable": {"which": "raw"}},
    ),
    Row(
        "unused fallbacks",
        lambda p: p.ask("A {x}").with_fallbacks([p.ask("F {x}")]) | p.ask("B {x}"),
        2,
        used=2,
    ),
    Row(
        "used fallbacks",
        lambda p: (
            (p.ask("A {x}") | RunnableLambda(_raises)).with_fallbacks([p.ask("F {x}")])
            | p.ask("B {x}")
        ),
        3,
        planned=2,
        sets=1,
        used=2,
    ),
    Row("retry without need", lambda p: p.ask("A {x}").with_retry() | p.ask("B {x}"), 2, used=2),
    Row(
        "retry",
        lambda p: (
            (p.ask("A {x}") | _fails_first(1)).with_retry(
                wait_exponential_jitter=False, exponential_jitter_params={"initial": 0}
            )
            | p.ask("B {x}")
        ),
        3,
        planned=2,
        sets=1,
        used=2,
    ),
    Row(
        "branch on a Python condition",
        lambda p: (
            p.ask("A {x}")
            | RunnableBranch((lambda x: "a" in x, p.ask("B {x}")), p.ask("C {x}"))
            | p.ask("D {x}")
        ),
        3,
        planned=2,
        sets=1,
        used=2,
        reason="a Python condition; see if_contains()",
    ),
    Row(
        "branch on a known text",
        lambda p: (
            RunnableBranch((if_contains("ee"), p.ask("B {x}")), p.ask("C {x}")) | p.ask("D {x}")
        ),
        2,
        used=2,
    ),
    Row(
        "branch on a generated text",
        lambda p: (
            p.ask("A {x}")
            | RunnableBranch(
                (if_contains("zzz"), p.ask("B {x}")), (~if_empty(), p.ask("C {x}")), p.ask("D {x}")
            )
            | p.ask("E {x}")
        ),
        3,
        used=3,
    ),
    Row(
        "loop",
        lambda p: (
            p.ask("A {x}")
            | repeat_until(p.ask("B {x}"), if_contains("zzz"), max_rounds=3)
            | p.ask("C {x}")
        ),
        5,
        used=5,
    ),
    Row(
        "router",
        lambda p: routed(runnables={"a": p.ask("A {x}"), "b": p.ask("B {x}")}) | p.ask("C {x}"),
        2,
        used=2,
        value={"key": "b", "input": "bees"},
    ),
    Row(
        "router with a generated key",
        lambda p: (
            RunnableParallel(
                key=p.ask("K {x}") | RunnableLambda(lambda _: "a"), input=RunnablePassthrough()
            )
            | routed(runnables={"a": p.ask("A {x}")})
            | p.ask("C {x}")
        ),
        3,
        planned=2,
        sets=1,
        used=2,
        reason="the key is made on the client",
    ),
    Row(
        "message history",
        lambda p: (
            p.ask("A {x}") | RunnableLambda(lambda x: {"q": x}) | _history(p) | p.ask("B {x}")
        ),
        3,
        planned=2,
        sets=1,
        used=2,
        reason="the history is read on the client",
        config={"configurable": {"session_id": "s"}},
    ),
    Row(
        "f-string prompt",
        lambda p: p.ask("A {x}") | prompt("<{x}> {{}} {x}") | p.llm,
        2,
        used=2,
    ),
    Row(
        "f-string with a format",
        lambda p: p.ask("A {x}") | prompt("{x:>99}") | p.llm | p.ask("B {x}"),
        3,
        planned=2,
        sets=1,
        used=2,
        reason="a format spec is applied to a generated value",
    ),
    Row(
        "f-string with a conversion",
        lambda p: p.ask("A {x}") | prompt("{x!r}") | p.llm,
        2,
        planned=2,
        used=1,
        reason="repr of a generated value",
    ),
    Row(
        "mustache",
        lambda p: p.ask("A {x}") | prompt("{{x}} {{{x}}}", template_format="mustache") | p.llm,
        2,
        used=2,
    ),
    Row(
        "mustache section",
        # A chat model's text can be called, and LangChain's Mustache does so in sections.
        lambda p: (
            prompt("A {x}") | p.llm | prompt("{{#x}}yes{{/x}}", template_format="mustache") | p.llm
        ),
        2,
        planned=2,
        used=1,
        reason="a section of the template depends on 'x'",
    ),
    Row(
        "jinja2",
        lambda p: (
            p.ask("A {x}") | prompt("{{x}} {{x|e}} {{x ~ '!'}}", template_format="jinja2") | p.llm
        ),
        2,
        used=2,
    ),
    Row(
        "jinja2 filter",
        lambda p: p.ask("A {x}") | prompt("{{x|upper}}", template_format="jinja2") | p.llm,
        2,
        planned=2,
        used=1,
        reason="generated value",
    ),
    Row(
        "jinja2 condition",
        lambda p: (
            p.ask("A {x}") | prompt("{% if x %}y{% endif %}", template_format="jinja2") | p.llm
        ),
        2,
        planned=2,
        used=1,
        reason="bool of a generated value",
    ),
    Row(
        "function in a prompt",
        lambda p: (
            p.ask("A {x}") | chat_prompt("{now} {x}").partial(now=lambda: "noon") | p.chat | text
        ),
        2,
        sets=1,
        used=2,
        reason="a function of the prompt makes it",
    ),
    Row(
        "placeholder for known messages",
        lambda p: (
            RunnableParallel(
                h=RunnableLambda(traceable_step(lambda x: [HumanMessage(x)])), a=p.ask("A {x}")
            )
            | ChatPromptTemplate([MessagesPlaceholder("h"), ("human", "{a}")])
            | p.chat
        ),
        2,
        used=2,
    ),
    Row(
        "placeholder for a generated message",
        lambda p: (
            RunnableParallel(
                h=chat_prompt("A {x}") | p.chat | RunnableLambda(traceable_step(lambda m: [m]))
            )
            | ChatPromptTemplate([MessagesPlaceholder("h"), ("human", "and?")])
            | p.chat
        ),
        2,
        used=2,
    ),
    Row(
        "placeholder for what Python makes",
        lambda p: (
            RunnableParallel(h=p.ask("A {x}") | RunnableLambda(lambda m: [AIMessage(m)]))
            | ChatPromptTemplate([MessagesPlaceholder("h"), ("human", "and?")])
            | p.chat
        ),
        2,
        planned=2,
        used=1,
        reason="cut         ChatParrot",
    ),
    Row(
        "completion model",
        lambda p: prompt("A {x}") | p.llm | prompt("B {x}") | p.llm,
        2,
        used=2,
    ),
    Row(
        "another provider's model",
        lambda p: p.ask("A {x}") | FakeListChatModel(responses=["fake"]) | text | p.ask("B {x}"),
        2,
        sets=1,
        used=2,
        reason="cut         FakeListChatModel: it runs on the client",
    ),
    Row(
        "other parser",
        lambda p: (
            p.ask("A {x}")
            | RunnableLambda(lambda x: '{"k": "v"}')
            | JsonOutputParser()
            | itemgetter("k")
            | p.ask("B {x}")
        ),
        2,
        sets=1,
        used=2,
        reason="JsonOutputParser",
    ),
    Row(
        "message in a text",
        lambda p: (
            chat_prompt("A {x}")
            | p.chat
            | RunnableLambda(lambda m: AIMessage(m.content, id="1"))
            | chat_prompt("B {x}")
            | p.chat
            | text
        ),
        2,
        sets=1,
        used=2,
        reason="late-bound",
    ),
    Row(
        "model with a rate limiter",
        lambda p: (
            p.ask("A {x}")
            | chat_prompt("B {x}")
            | p.chat.model_copy(
                update={
                    "rate_limiter": InMemoryRateLimiter(
                        requests_per_second=1e4, check_every_n_seconds=0.001
                    )
                }
            )
            | text
        ),
        2,
        planned=2,
        used=1,
        reason="rate limiter",
    ),
    Row(
        "model with a cache",
        lambda p: (
            p.ask("A {x}")
            | chat_prompt("B {x}")
            | p.chat.model_copy(update={"cache": InMemoryCache()})
            | text
        ),
        2,
        planned=2,
        used=1,
        reason="cache of replies",
    ),
    Row(
        "tools",
        lambda p: (
            chat_prompt("A {x}")
            | p.chat.bind_tools(
                [
                    {
                        "name": "t",
                        "description": "d",
                        "parameters": {"type": "object", "properties": {}},
                    }
                ]
            )
            | text
            | p.ask("B {x}")
        ),
        2,
        sets=1,
        used=2,
        reason="the model may ask for tools",
    ),
    Row(
        "max_concurrency",
        lambda p: (
            {"a": p.ask("A {x}"), "b": p.ask("B {x}"), "c": p.ask("C {x}")} | p.ask("{a} {b} {c}")
        ),
        4,
        planned=4,
        sets=0,
        used=1,
        reason="max_concurrency allows 2 at once",
        config={"max_concurrency": 2},
    ),
    Row("nested", lambda p: as_parrot(p.ask("A {x}")) | as_parrot(p.ask("B {x}")), 2, used=2),
]


def settle(server: ScriptedServer) -> None:
    server.wait_until_idle()
    assert background().settle(10)
    server.wait_until_empty()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_construct(server: ScriptedServer, row: Row) -> None:
    parts = Parts(server.url)
    server.requests.clear()
    expected = plain(row.build(parts).invoke(row.value, row.config))
    if "nested" not in row.name:
        assert server.num_submits == row.plain
    settle(server)
    server.requests.clear()
    with watch_plans() as plans:
        found = plain(as_parrot(row.build(parts)).invoke(row.value, row.config))
    settle(server)
    report = plans[0].report()
    assert found == expected
    assert row.reason in str(report)
    counted = (
        server.num_submits,
        report.num_sets,
        report.num_claimed,
        report.num_wasted,
        report.num_lost,
    )
    assert counted == (row.planned, row.sets, row.used, row.wasted, 0)
    assert server.num_sets == row.sets
