"""What becomes of each construct of templates: the same result, and how much of it was planned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.connectors.ai.text_to_audio_client_base import TextToAudioClientBase
from semantic_kernel.contents import ChatHistory
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import (
    KernelArguments,
    KernelFunction,
    KernelFunctionFromPrompt,
    kernel_function,
)
from semantic_kernel.prompt_template import InputVariable
from semantic_kernel.services.ai_service_selector import AIServiceSelector

from parrot_backend.engines import scripted_reply
from parrot_integrations.planning.report import PlanReport
from parrot_integrations.semantic_kernel import (
    ParrotChatPromptExecutionSettings,
    ParrotPlanFilter,
    ParrotTextCompletion,
    plan_function,
    traceable_step,
    watch_plans,
)
from tests.helpers.scripted_server import ScriptedServer, scripted_server
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

#: What models say: all that templates, XML and HTML make something of, but no control characters.
WORDS = (
    "<b>",
    "&amp;",
    "it's",
    '"so"',
    "{x}",
    "{{$input}}",
    "&lt;i&gt;",
    "&amp;lt;",
    "\u00e4",
    "a",
)
TEXT = ' A <b a="1"> &lt; & \u00e9 '
LIST = ["one", "<two> & 'three'"]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripted_reply, "WORDS", WORDS)
        with scripted_server() as server:
            yield server


class Tools:
    """Native functions."""

    @kernel_function
    def now(self) -> str:
        return " <noon> &amp; after "

    @kernel_function
    def nothing(self) -> None:
        return None

    @kernel_function
    def shout(self, input: str) -> str:
        return input.upper() + "!"

    @kernel_function
    @traceable_step
    def quoted(self, input: str) -> str:
        return f"'{input}'"

    @kernel_function
    @traceable_step
    def both(self, input: str, other: str = "x") -> list[str]:
        return [input, other]

    @kernel_function
    @traceable_step
    async def slowly(self, input: str) -> str:
        return "~" + input

    @kernel_function
    @traceable_step
    def decides(self, input: str) -> str:
        return "long" if len(input) > 3 else "short"


def kernel(url: str, *, is_planned: bool) -> Kernel:
    found = kernel_of(url, is_planned=is_planned)
    lists = trusted("items", "history", "chat_history")
    add(found, "s", "Summarise: {{$input}}", inputs=lists)
    add(found, "t", "Title for {{$input}} in {{$lang}}", inputs=lists)
    add(found, "c", "Critique {{w.s $input}} titled {{w.t lang='fr'}}", inputs=lists)
    found.add_plugin(Tools(), "n")
    return found


@dataclass(frozen=True)
class Case:
    name: str
    template_format: str
    template: str
    planned: int
    late: int = 0
    cut: str | None = None
    used: int | None = None
    given: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def sk(name: str, template: str, planned: int, **more: Any) -> Case:
    return Case(f"semantic-kernel: {name}", "semantic-kernel", template, planned, **more)


def bars(name: str, template: str, planned: int, **more: Any) -> Case:
    return Case(f"handlebars: {name}", "handlebars", template, planned, **more)


def jinja(name: str, template: str, planned: int, **more: Any) -> Case:
    return Case(f"jinja2: {name}", "jinja2", template, planned, **more)


HISTORY = ChatHistory(system_message="Be <brief> & kind")
HISTORY.add_user_message(TEXT)
HISTORY.add_assistant_message("'So' &amp; so")

DANGEROUS = {"allow_dangerously_set_content": True}

CASES: Sequence[Case] = (
    sk(
        "positional, named, constant",
        "{{w.s $input}} {{w.t input=$input lang='fr'}} {{w.s 'x'}}",
        4,
    ),
    sk("nothing but a call", "{{w.s}}", 2),
    sk("doubly nested", "x {{w.c}} y {{w.c input='<i>'}}", 7),
    sk("message tags", "<message role='system'>{{w.s}}</message> {{w.t}} and", 3),
    sk("text around messages", "You {{w.s}} <message role='user'> {{w.t}} </message> so", 3),
    sk("text tags", "<message role='user'><text>{{w.s}}</text><text> {{w.t}}</text></message>", 3),
    sk("unknown tags", "<p class='x'>{{w.s}}</p> {{w.t}}", 3),
    sk("invalid XML", "a & b < c {{w.s}} {{w.t}} ", 3),
    sk("an entity", "a &lt; b {{w.s}} {{w.t}}", 3),
    sk(
        "a value as a name",
        "<message role='user' name='{{w.s}}'>x</message>{{w.t}}",
        2,
        cut="more than",
    ),
    sk("a value as a role", "<message role='{{w.s}}'>x</message>{{w.t}}", 2, cut="Error"),
    sk("a native function", "At {{n.now}}: {{w.s}} {{w.t}}", 3, late=1),
    sk("native functions alone", "{{n.now}} {{n.shout $input}}", 1, late=2),
    sk("native functions side by side", "{{n.now}}{{n.now}}: {{w.s}} {{w.t}}", 3, late=2),
    sk("a native function without a result", "At {{n.nothing}}: {{w.s}} {{w.t}}", 3, late=1),
    sk("native with an argument", "{{n.shout $input}}: {{w.s}} {{w.t}}", 3, late=1),
    sk("native, looked through", "{{n.quoted $input}}: {{w.s}}", 2),
    sk("native, a list", "{{n.both $input other='y'}}: {{w.s}}", 2),
    sk("native, a coroutine", "{{n.slowly $input}}: {{w.s}}", 2),
    sk("empty values", "{{$none}} {{w.s input=$empty}} {{w.t $empty}}", 3, given={"empty": ""}),
    sk("numbers", "{{$n}} {{w.s $n}} {{w.t $n}}", 3, given={"n": 7}),
    sk(
        "a default",
        "{{$mood}} {{w.s $mood}} {{w.t $mood}}",
        3,
        config={"inputs": [InputVariable(name="mood", default="<merry>")]},
    ),
    sk(
        "a chat history",
        "{{$history}} {{w.s}} {{w.t}}",
        3,
        given={"history": HISTORY},
        config={"inputs": trusted("history")},
    ),
    sk("dangerous content", "{{w.s}} and {{w.t}}", 2, cut="template changes", config=DANGEROUS),
    sk("an unknown function", "{{w.s}} {{w.t}} {{w.unknown}}", 2, cut="not found", used=2),
    bars("a call", "{{w-s}} and {{w-t input='x' lang='fr'}}", 3),
    bars("three braces", "{{{w-s}}} and {{{w-t}}}", 3),
    bars("nested", "{{w-s input=(w-t input=(w-s))}}", 4),
    bars(
        "if by an argument",
        "{{#if yes}}{{w-s}}{{else}}{{w-t}}{{/if}}{{w-c}}",
        5,
        given={"yes": True},
    ),
    bars("unless", "{{#unless no}}{{w-s}}{{/unless}} {{w-t}}", 3, given={"no": False}),
    bars("if by a value", "{{#if (w-s)}}{{w-t}}{{/if}} {{w-c}}", 1, cut="bool"),
    bars("compared", "{{#if (equals (w-s) 'x')}}{{w-t}}{{/if}} {{w-c}}", 1, cut="eq"),
    bars(
        "each over a list",
        "{{#each items}}{{@index}} {{w-s input=this}};{{/each}}",
        3,
        given={"items": LIST},
        config={"inputs": trusted("items")},
    ),
    bars("each over an array of calls", "{{#each (array (w-s) (w-t))}}<{{this}}>{{/each}}", 3),
    bars("each over a value", "{{#each (w-s)}}x{{/each}} {{w-t}}", 1, cut="len"),
    bars(
        "set and get",
        "{{set 'a' (w-s)}}{{set name='b' value=(w-t)}}{{get 'b'}} {{a}} {{w-s input=(get 'a')}}",
        4,
    ),
    bars("concat", "{{concat 'a' (w-s) 'b' (w-t)}} {{w-s input=(concat (w-s) 'x')}}", 5),
    bars(
        "a message helper",
        "{{w-s}}{{#message role='user'}} {{w-t}} {{/message}}",
        3,
    ),
    bars("json", "{{json (w-s)}} {{w-t}}", 2, cut="cut or rewritten"),
    bars("or", "{{or (w-s) 'x'}} {{w-t}}", 1, cut="bool"),
    bars("camel case", "{{camelCase (w-s)}} {{w-t}}", 1, cut="split"),
    bars("its length", "{{#with (w-s)}}{{this}} {{length}}{{/with}} {{w-t}}", 1, cut="getitem"),
    bars("a native function", "{{n-now}} {{w-s}} {{w-t}}", 3, late=1),
    bars("native, of a value", "{{n-quoted input=(w-s)}} {{w-t}}", 3),
    bars("native, deciding", "{{n-decides input=(w-s)}} {{w-t}}", 3, late=1),
    bars("dangerous content", "{{w-s}} and {{w-t}}", 2, cut="template changes", config=DANGEROUS),
    bars(
        "chat history",
        "{{messages this}} {{w-s}} {{w-t}}",
        3,
        given={"chat_history": HISTORY},
        config={"inputs": trusted("chat_history")},
    ),
    jinja("calls", "{{ w_s() }} {{ w_t(input='x', lang='fr') }}", 3),
    jinja("doubly nested", "{{ w_s(input=w_t(input=w_c(input='y'))) }}", 6),
    jinja(
        "for",
        "{% for x in items %}{{ loop.index }} {{ w_s(input=x) }};{% endfor %}",
        3,
        given={"items": LIST},
        config={"inputs": trusted("items")},
    ),
    jinja(
        "if by an argument",
        "{% if input|length > 2 %}{{ w_s() }}{% else %}{{ w_t() }}{% endif %} {{ w_c() }}",
        5,
    ),
    jinja("if by a value", "{% if w_s() %}{{ w_t() }}{% endif %} {{ w_c() }}", 1, cut="bool"),
    jinja("by its length", "{% if w_s()|length > 3 %}a{% endif %} {{ w_t() }}", 1, cut="len"),
    jinja("set", "{% set a = w_s() %}{{ a }} {{ a }} {{ w_t(input=a) }}", 3),
    jinja("joined", "{{ [w_s(), w_t()]|join('; ') }} {{ w_s() ~ ' x ' ~ w_t() }}", 5),
    jinja("stripped", "x {{ w_s()|trim }} y {{ w_t()|trim }}", 3),
    jinja("escaped", "{{ w_s()|e }} {{ w_t()|e }}", 3),
    jinja("upper", "{{ w_s()|upper }} {{ w_t() }}", 1, cut="upper"),
    jinja("replaced", "{{ w_s()|replace('a', 'b') }} {{ w_t() }}", 2, cut="template changes"),
    jinja("in a format", "{{ '%s, %s'|format(w_s(), w_t()) }}", 3),
    jinja("represented", "{{ [w_s()] }} {{ w_t() }}", 2, cut="cut or rewritten"),
    jinja("a default", "{{ w_s()|default('x') }} {{ w_t() }}", 3),
    jinja(
        "a macro", "{% macro m(x) %}<{{ w_s(input=x) }}>{% endmacro %}{{ w_t() }} {{ w_s() }}", 3
    ),
    jinja("a native function", "{{ n_now() }} {{ w_s() }} {{ w_t() }}", 3, late=1),
    jinja("native, of a value", "{{ n_shout(input=w_s()) }} {{ w_t() }}", 3, late=1),
    jinja(
        "messages",
        "{{ w_s() }}\n<message role='user'>\n {{ w_t() }}\n</message>",
        3,
    ),
    jinja(
        "dangerous content",
        "{{ w_s() }} and {{ w_t() }}",
        2,
        cut="template changes",
        config=DANGEROUS,
    ),
    jinja(
        "dangerous: what a result holds",
        "{{ w_s().function.name }} {{ w_t() }}",
        1,
        cut="function of a",
        config=DANGEROUS,
    ),
)


def used(report: PlanReport) -> tuple[int, int, int]:
    return (report.num_planned, report.num_claimed, report.num_missed)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_construct(server: ScriptedServer, case: Case) -> None:
    given = {"input": TEXT, "lang": "en", **case.given}
    functions = {}
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned)
        functions[is_planned] = (
            found,
            add(found, "f", case.template, case.template_format, **case.config),
        )
    plain_kernel, plain_function = functions[False]
    planned_kernel, planned_function = functions[True]
    plan = (await plan_function(planned_kernel, planned_function, arguments(**given))).report()
    expected = await outcome(plain_kernel, plain_function, **given)
    with watch_plans() as plans:
        assert await outcome(planned_kernel, planned_function, **given) == expected
    await settle(server)
    assert plan.num_planned == case.planned
    assert len(plan.late) == case.late, str(plan)
    whys = [note.why for note in plan.cuts]
    assert (whys == []) if case.cut is None else (case.cut in whys[0]), str(plan)
    if plan.num_planned > 1:
        report = plans[0].report()
        assert report.num_claimed == plan.num_planned, str(report)


TEXT_CASES = (
    sk("a text service", "{{w.s}} &amp; {{w.t}} <b>", 3),
    sk("a text service, dangerous", "{{w.s}} and {{w.t}}", 3, config=DANGEROUS),
    bars("a text service, dangerous", "{{w-s}} and {{w-t}}", 3, config=DANGEROUS),
    jinja("a text service, dangerous", "{{ w_s() }} and {{ w_t() }}", 3, config=DANGEROUS),
    bars("dangerous, by a result", "{{#if (w-s)}}{{w-t}}{{/if}}", 3, config=DANGEROUS),
    jinja("a text service", "{{ w_s() }} and {{ w_t()|trim }}", 3),
)


@pytest.mark.parametrize("case", TEXT_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("is_streaming", [False, True])
async def test_text_services(server: ScriptedServer, case: Case, is_streaming: bool) -> None:
    texts = []
    for is_planned in (False, True):
        found = Kernel(services=ParrotTextCompletion(host=server.url, service_id="default"))
        if is_planned:
            found.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter())
        add(found, "s", "Summarise: {{$input}}")
        add(found, "t", "Title for {{$input}} in {{$lang}}")
        function = add(found, "f", case.template, case.template_format, **case.config)
        given = {"input": TEXT, "lang": "en"}
        with watch_plans() as plans:
            if is_streaming:
                texts.append(await streamed(found, function, **given))
            else:
                texts.append(await outcome(found, function, **given))
    await settle(server)
    assert texts[0] == texts[1]
    (plan,) = plans
    assert used(plan.report()) == (case.planned, case.planned, 0), str(plan.report())


def own_settings(**fields: Any) -> ParrotChatPromptExecutionSettings:
    return ParrotChatPromptExecutionSettings(service_id="default", **fields)


SETTINGS: dict[str, tuple[Any, Any]] = {
    "the function's": (None, own_settings(max_tokens=3)),
    "the arguments'": (own_settings(max_tokens=2), None),
    "both, for one service": (own_settings(max_tokens=2), own_settings(max_tokens=3)),
    "of another service": (
        PromptExecutionSettings(service_id="other", max_tokens=2),
        own_settings(max_tokens=3),
    ),
    "the framework's own": (PromptExecutionSettings(extension_data={"max_tokens": 4}), None),
}


@pytest.mark.parametrize("name", SETTINGS)
async def test_settings_leak_as_the_framework_lets_them(server: ScriptedServer, name: str) -> None:
    of_arguments, of_function = SETTINGS[name]
    results = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned)
        add(found, "inner", "Inner {{$input}}", settings=of_function)
        function = add(found, "f", "{{w.inner}} {{w.s}} {{w.t}}")
        given = KernelArguments(settings=of_arguments, input="x", lang="en")
        before = dict(given.execution_settings or {})
        with watch_plans() as plans:
            results.append(str(await found.invoke(function, given)))
        if is_planned:
            after = set(given.execution_settings or {})
        else:
            expected = set(given.execution_settings or {})
    await settle(server)
    assert results[0] == results[1]
    assert after == expected >= before.keys()
    assert used(plans[0].report()) == (4, 4, 0)


async def test_nothing_of_the_users_is_touched_by_planning(server: ScriptedServer) -> None:
    found = kernel(server.url, is_planned=True)
    function = add(
        found,
        "f",
        "{{w.s}} {{w.t}} {{$mood}}",
        inputs=[InputVariable(name="mood", default="merry")],
        settings=own_settings(max_tokens=3),
    )
    settings = PromptExecutionSettings(service_id="other")
    given = KernelArguments(settings=settings, input="x")
    await plan_function(found, function, given)
    assert dict(given) == {"input": "x"}
    assert given.execution_settings == {"other": settings}


async def test_yaml(server: ScriptedServer) -> None:
    text = """
name: report
template_format: handlebars
template: |
  <message role="system">Be brief.</message>
  <message role="user">{{w-s}} {{w-t}}</message>
input_variables:
  - name: lang
    default: de
execution_settings:
  default:
    max_tokens: 5
"""
    results = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned)
        function = KernelFunctionFromPrompt.from_yaml(text, "y")
        with watch_plans() as plans:
            results.append(await outcome(found, function, input=TEXT))
    await settle(server)
    assert results[0] == results[1]
    assert used(plans[0].report()) == (3, 3, 0)


class OwnSelector(AIServiceSelector):
    pass


class OwnKernel(Kernel):
    def get_function(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_function(*args, **kwargs)


class OwnFunction(KernelFunctionFromPrompt):
    async def _invoke_internal(self, context: Any) -> None:
        await super()._invoke_internal(context)


class Text:
    def __str__(self) -> str:
        raise AssertionError("run while it is planned")


async def reason(found: Kernel, function: Any, **values: Any) -> str:
    (note, *_) = (await plan_function(found, function, arguments(**values))).report().cuts
    return note.why


async def test_what_is_not_the_frameworks_is_cut(server: ScriptedServer) -> None:
    found = kernel(server.url, is_planned=True)
    function = add(found, "f", "{{w.s}} {{w.t}}")
    assert "of the program's own" in await reason(found, function, input=Text())
    assert "of the program's own" in await reason(found, function, input=[{"a": Text()}])
    assert "of the program's own" in await reason(found, function, input=(x for x in "ab"))
    own: Any = OwnFunction
    own = own("own", "w", prompt="{{w.s}} {{w.t}}")
    assert "says itself" in await reason(found, own, input="x")
    found.ai_service_selector = OwnSelector()
    assert "selector" in await reason(found, function, input="x")
    other = OwnKernel(services={"default": chat(server.url)})
    assert "kernel's class" in await reason(other, function, input="x")


async def test_a_function_on_another_service_is_a_step_of_the_client(
    server: ScriptedServer,
) -> None:
    with scripted_server() as elsewhere:
        results = []
        for is_planned in (False, True):
            found = kernel(server.url, is_planned=is_planned)
            found.add_service(chat(elsewhere.url, service_id="other"))
            there = PromptExecutionSettings(service_id="other")
            add(found, "there", "There {{w.s}} {{$input}}", settings=there)
            function = add(found, "f", "Say {{w.s}} {{w.there}} {{w.t}}")
            with watch_plans() as plans:
                results.append(await outcome(found, function, input="x", lang="en"))
        assert results[0] == results[1]
        report = plans[0].report()
        assert [note.where for note in report.cuts] == ["w-there"]
        assert "another server" in report.cuts[0].why
        # The one is that on the other server.
        assert used(report) == (4, 4, 1), str(report)
        await settle(elsewhere)
    await settle(server)


class Speaker(TextToAudioClientBase):
    async def get_audio_contents(self, *_args: Any, **_kwargs: Any) -> list[Any]:
        raise AssertionError("not asked")


async def test_streams_are_of_services_that_stream(server: ScriptedServer) -> None:
    results = []
    for is_planned in (False, True):
        found = kernel_of(server.url, is_planned=is_planned)
        found.services = {
            "speaker": Speaker(ai_model_id="speaker", service_id="speaker"),
            "chat": chat(server.url, service_id="chat"),
        }
        own = PromptExecutionSettings(service_id="chat")
        add(found, "s", "Summarise: {{$input}}", settings=own)
        made = add(found, "f", "Say {{w.s}}")
        with watch_plans() as plans:
            results.append(await streamed(found, made, input="x"))
    await settle(server)
    assert results[0] == results[1]
    assert used(plans[0].report()) == (2, 2, 0)


async def both_ways(
    server: ScriptedServer, build: Callable[[Kernel], KernelFunction]
) -> tuple[list[Any], PlanReport]:
    """What a function comes to without and with a plan, and the plan's report."""
    results = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned)
        with watch_plans() as plans:
            results.append(await outcome(found, build(found), input=TEXT, lang="en"))
    await settle(server)
    return results, plans[0].report()


async def test_several_replies(server: ScriptedServer) -> None:
    def build(found: Kernel) -> KernelFunction:
        settings = ParrotChatPromptExecutionSettings(number_of_responses=2, seed=7)
        add(found, "two", "Two of {{$input}}", settings=settings)
        return add(found, "f", "Of {{w.two}}")

    results, report = await both_ways(server, build)
    assert results[0] == results[1]
    assert used(report) == (3, 3, 0), str(report)


async def test_functions_of_a_directory(server: ScriptedServer, tmp_path: Path) -> None:
    folder = tmp_path / "files" / "sum"
    folder.mkdir(parents=True)
    (folder / "skprompt.txt").write_text("Sum {{$input}} in {{$lang}}")
    (folder / "config.json").write_text('{"execution_settings": {"default": {"max_tokens": 5}}}')

    def build(found: Kernel) -> KernelFunction:
        found.add_plugin(parent_directory=str(tmp_path), plugin_name="files")
        return add(found, "f", "{{files.sum}} & {{files.sum 'x'}}")

    results, report = await both_ways(server, build)
    assert results[0] == results[1]
    assert used(report) == (3, 3, 0), str(report)


async def test_a_service_that_is_not_there(server: ScriptedServer) -> None:
    def build(found: Kernel) -> KernelFunction:
        add(found, "lost", "Lost", settings=PromptExecutionSettings(service_id="nowhere"))
        return add(found, "f", "{{w.s}} {{w.t}} {{w.lost}}")

    results, report = await both_ways(server, build)
    assert results[0] == results[1]
    (note,) = report.cuts
    assert note.where == "w-lost"
    assert "No service found" in note.why


async def test_a_service_that_is_not_there_is_the_frameworks_error(
    server: ScriptedServer,
) -> None:
    found = kernel(server.url, is_planned=True)
    settings = PromptExecutionSettings(service_id="nowhere")
    lost = add(found, "lost", "Lost {{w.s}} {{w.t}}", settings=settings)
    assert "KernelServiceNotFoundError" in await outcome(found, lost, input="x", lang="en")
    await settle(server)
