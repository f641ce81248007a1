"""Random LCEL trees: what they are is data with a repr, what they become is made from a kit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import (
    CommaSeparatedListOutputParser,
    JsonOutputParser,
    StrOutputParser,
)
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotPromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)
from langchain_core.runnables import (
    RouterRunnable,
    Runnable,
    RunnableBranch,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
)

from parrot_integrations.langchain import (
    if_contains,
    if_empty,
    join_list,
    json_list,
    repeat_until,
    split_lines,
    split_list,
)
from tests.integrations.langchain.chain_kit import FAILING, Kit

Chain = Runnable[Any, Any]


@dataclass(frozen=True)
class Tree:
    """A chain from text to text.

    Attributes:
        kind: What is at its root.
        args: Parameters and sub-trees.
    """

    kind: str
    args: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(map(repr, self.args))})"

    def build(self, kit: Kit) -> Chain:
        chain: Chain = _BUILDERS[self.kind](
            kit, *(arg.build(kit) if isinstance(arg, Tree) else arg for arg in self.args)
        )
        return chain

    def has(self, *kinds: str) -> bool:
        inner = [arg for arg in self.args if isinstance(arg, Tree)]
        return self.kind in kinds or any(tree.has(*kinds) for tree in inner)


TEMPLATES = {
    "f-string": (
        "{x}", "Say {x}", "<{x}> & {x}!", "{x!r}", "{x!s} s", "[{x:>10}]", "{{x}} {x}",
        "{{{{input:x}}}} {x}", f"{FAILING} {{x}}", "\ue0001:2\ue001 {x}",
    ),
    "mustache": (
        "{{x}}", "Raw {{{x}}}", "And {{&x}} or {{x}}", "{{#x}}yes {{x}}{{/x}}", "{{^x}}no{{/x}}.",
        "{{! nothing }}<b>{{x}}</b>", "{x} {{x}}",
    ),
    "jinja2": (
        "{{ x }}", "Esc {{ x|e }}", "{{ x|upper }}", "<{{ x|trim }}>", "{{ x ~ '!' }}",
        "{% if x %}has {{ x }}{% endif %}.", "{{ x|length }} {{ x }}", "{{ x|default('d') }}",
        "{{ x|replace('a', 'b') }}", "{{ x|tojson }}", "{% for c in x %}{{ c }}-{% endfor %}.",
        "{{ x|urlencode }} {{ x }}", "{% set y = x %}{{ y }}", "{{ x[:5] }}.", "{{ x is string }}.",
    ),
}  # fmt: skip


def _templates() -> st.SearchStrategy[tuple[str, str]]:
    pairs = [(form, text) for form, texts in TEMPLATES.items() for text in texts]
    return st.sampled_from(pairs)


def _prompt(form: str, text: str) -> PromptTemplate:
    return PromptTemplate.from_template(text, template_format=form)  # type: ignore[arg-type]


def _ask(kit: Kit, form: str, text: str, model: str) -> Chain:
    """One call of a model."""
    if model == "llm":
        return _prompt(form, text) | kit.llm()
    if model == "system":
        messages = [
            ("system", "Be <brief> & {{x}}" if form == "f-string" else "Be."),
            ("human", text),
        ]
        prompt: Chain = ChatPromptTemplate.from_messages(messages, template_format=form)  # type: ignore[arg-type]
    else:
        prompt = ChatPromptTemplate.from_template(text, template_format=form)
    chat: Chain = kit.chat()
    if model == "stop":
        chat = kit.chat().bind(stop=["e"])
    elif model == "bound":
        chat = (
            kit.chat().bind(max_tokens=3).with_config(tags=["t"], metadata={"m": 1}, run_name="r")
        )
    elif model == "fields":
        chat = kit.configurable()
    elif model == "alternatives":
        chat = kit.alternatives()
    elif model == "unknown":
        chat = kit.chat(model="no-such-model")
    elif model == "streaming":
        chat = kit.chat(streaming=True)
    return prompt | chat | StrOutputParser()


def _say(kit: Kit, text: str = "Again {x}") -> Chain:
    return ChatPromptTemplate.from_template(text) | kit.chat() | StrOutputParser()


def _history(kit: Kit, is_traceable: bool) -> Chain:
    """A chat that holds a generated message."""
    asked = ChatPromptTemplate.from_template("First {x}") | kit.chat()

    def talk(message: Any) -> list[Any]:
        return [SystemMessage("<s>"), HumanMessage("q"), message, AIMessage("a")]

    lister = kit.traceable("talk", talk) if is_traceable else kit.step("talk", talk)
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("h"), ("human", "{x}")])
    parts: Chain = RunnableParallel(h=asked | lister, x=RunnablePassthrough())
    return parts | prompt | kit.chat() | StrOutputParser()


def _few_shot(kit: Kit) -> Chain:
    example = PromptTemplate.from_template("{q} -> {a}")
    prompt = FewShotPromptTemplate(
        examples=[{"q": "1", "a": "<one>"}, {"q": "2", "a": "two"}],
        example_prompt=example,
        suffix="{x} ->",
        input_variables=["x"],
    )
    return prompt | kit.llm()


def _partial(kit: Kit) -> Chain:
    def now() -> str:
        kit.count("partial", "")
        return "noon"

    prompt = ChatPromptTemplate.from_template("At {now}: {x}").partial(now=now)
    return prompt | kit.chat() | StrOutputParser()


def _retry(kit: Kit, inner: Chain, num_times: int) -> Chain:
    return (inner | kit.failing(f"fails{num_times}", num_times)).with_retry(
        stop_after_attempt=3,
        wait_exponential_jitter=False,
        exponential_jitter_params={"initial": 0},
    )


def _fallbacks(kit: Kit, primary: Chain, other: Chain) -> Chain:
    return primary.with_fallbacks([other])


def _branch(kit: Kit, is_python: bool, yes: Chain, no: Chain) -> Chain:
    condition: Any = if_contains("a")
    if is_python:
        condition = kit.step("condition", lambda text: "b" in text)
    return RunnableBranch((condition, yes), (~if_empty(), no), RunnablePassthrough())


def _router(kit: Kit, inner: Chain, other: Chain) -> Chain:
    chosen = kit.traceable("route", lambda text: {"key": "one", "input": text})
    return chosen | RouterRunnable(runnables={"one": inner, "two": other})


def _map(kit: Kit, source: str, inner: Chain) -> Chain:
    joined: Chain = join_list(", ", "<{}>")
    if source == "known":
        start: Chain = kit.traceable("list", lambda text: [text, "two", f"{text}!"])
    elif source == "python":
        start = kit.step("list", lambda text: [text, "two"])
        joined = kit.step("join", ";".join)
    elif source == "lines":
        start = split_lines()
    elif source == "json":
        start = (
            kit.traceable("brackets", lambda text: f'say ["{text}", 2, "\\u00e9"] so') | json_list()
        )
    else:
        start = split_list(" ")
    return start | inner.map() | joined


def _repeat(kit: Kit, inner: Chain, has_state: bool) -> Chain:
    if not has_state:
        return repeat_until(inner, if_contains("b"), max_rounds=3)
    body = RunnableParallel(draft=itemgetter("draft") | inner, note=itemgetter("x"))
    state = RunnableParallel(draft=RunnablePassthrough(), x=RunnablePassthrough())
    until = if_contains("a", key="draft", ignore_case=True)
    return state | repeat_until(body, until, max_rounds=3, result="draft")


def _two(kit: Kit, one: Chain, other: Chain) -> Chain:
    prompt = ChatPromptTemplate.from_template("{a} / {b} / {x}")
    parts: Chain = RunnableParallel(a=one, b=other, x=RunnablePassthrough())
    return parts | prompt | kit.chat() | StrOutputParser()


def _assign(kit: Kit, one: Chain, other: Chain) -> Chain:
    parts: Chain = RunnableParallel(a=one, x=RunnablePassthrough())
    added = RunnablePassthrough.assign(b=itemgetter("a") | other)
    return (
        parts | added | RunnablePick(["a", "b"]) | kit.step("both", lambda d: f"{d['a']}+{d['b']}")
    )


def _json(kit: Kit) -> Chain:
    made = kit.step("json", lambda text: f'{{"k": "{len(text)}", "l": ["a{{", "b"]}}')
    prompt = ChatPromptTemplate.from_template("{k} of {l}")
    return made | JsonOutputParser() | prompt | kit.chat() | StrOutputParser()


def _returning(kit: Kit, is_traceable: bool, inner: Chain) -> Chain:
    return (kit.traceable if is_traceable else kit.step)("returning", lambda text: inner)


def _listened(kit: Kit, inner: Chain) -> Chain:
    return inner.with_listeners(on_start=kit.listener("start"), on_end=kit.listener("end"))


_BUILDERS: dict[str, Callable[..., Chain]] = {
    "ask": _ask,
    "history": _history,
    "few_shot": _few_shot,
    "partial": _partial,
    "then": lambda kit, one, other: one | other,
    "two": _two,
    "assign": _assign,
    "pick": lambda kit, one: RunnableParallel(a=one) | RunnablePick("a") | _say(kit),
    "retry": _retry,
    "fallbacks": _fallbacks,
    "branch": _branch,
    "router": _router,
    "map": _map,
    "repeat": _repeat,
    "json": _json,
    "commas": lambda kit: (
        CommaSeparatedListOutputParser() | kit.step("commas", "+".join) | _say(kit)
    ),
    "python": lambda kit, name: kit.step(name, _FUNCTIONS[name]),
    "pure": lambda kit, name: kit.traceable(name, _FUNCTIONS[name]),
    "passing": lambda kit: RunnablePassthrough(lambda value: kit.count("pass", value)),
    "returning": _returning,
    "generator": lambda kit: kit.generator(),
    "retriever": lambda kit: kit.retriever() | kit.step("docs", lambda d: d[0].page_content),
    "custom": lambda kit: kit.custom(),
    "listened": _listened,
    "nested": lambda kit, inner: kit.nested(inner),
    "raising": lambda kit: kit.failing("raising", 99),
}

_FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "exclaim": lambda text: f"{text}!",
    "upper": lambda text: text.upper(),
    "nothing": lambda text: "",
    "start": lambda text: text[:4],
    "odd": lambda text: "<&\"'>{x}{{input:x}}\n " + text,
    "concat": lambda text: "a" + text + "\n\nb",
}

_MODELS = ("chat", "llm", "system", "stop", "bound", "fields", "alternatives", "streaming")


def _asks() -> st.SearchStrategy[Tree]:
    return st.builds(lambda t, m: Tree("ask", (*t, m)), _templates(), st.sampled_from(_MODELS))


def _leaves() -> st.SearchStrategy[Tree]:
    functions = st.sampled_from(sorted(_FUNCTIONS))
    return st.one_of(
        _asks(),
        _asks(),
        _asks(),
        st.builds(
            lambda kind, name: Tree(kind, (name,)), st.sampled_from(["python", "pure"]), functions
        ),
        st.sampled_from([Tree(k) for k in ("few_shot", "partial", "json", "commas", "passing")]),
        st.sampled_from([Tree(k) for k in ("generator", "retriever", "custom", "raising")]),
        st.builds(lambda flag: Tree("history", (flag,)), st.booleans()),
        st.builds(lambda t: Tree("ask", (*t, "unknown")), _templates()),
    )


def _larger(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    def of(kind: str, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[Tree]:
        return st.tuples(*args).map(lambda found: Tree(kind, found))

    flag = st.booleans()
    sources = st.sampled_from(["known", "python", "lines", "json", "words"])
    return st.one_of(
        of("then", inner, inner),
        of("then", inner, _asks()),
        of("then", inner, _asks()),
        of("two", inner, inner),
        of("assign", inner, inner),
        of("pick", inner),
        of("retry", inner, st.integers(0, 3)),
        of("fallbacks", inner, inner),
        of("branch", flag, inner, inner),
        of("router", inner, inner),
        of("map", sources, inner),
        of("repeat", inner, flag),
        of("returning", flag, inner),
        of("listened", inner),
        of("nested", inner),
    )


def trees() -> st.SearchStrategy[Tree]:
    return st.recursive(_leaves(), _larger, max_leaves=6)


def inputs() -> st.SearchStrategy[str]:
    """Texts that a template engine, a server or a planner might trip over."""
    awkward = [
        "bees", "", " ", "<&\"'>", "{x} {{x}} {0}", "{{input:x}}{{output:y}}",
        "\ue000 \ue001", "\x00\x07\x1f",
        "\n", "a\r\nb\u2028c", "\ue00012345:0:x:12345\ue001", "%s %(x)s $x",
        "&amp;&#x27;&#39;&lt;", "- one\n2. two\n",
        '["a", 1, {"b": null}]', "\U0001f99c\u0301 \u202e", "word " * 400, "x" * 70_000, FAILING,
        "{% if x %}", "<|user|> <|im_start|>", "[INST]",
    ]  # fmt: skip
    return st.one_of(st.sampled_from(awkward), st.text(max_size=12))
