"""Random prompt functions that invoke each other, in all formats, with awkward values."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from semantic_kernel import Kernel
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import KernelArguments, KernelFunction, kernel_function

from parrot_integrations.semantic_kernel import ParrotPlanFilter, traceable_step
from tests.integrations.semantic_kernel.kernel_kit import FORMATS, add, failure, kernel_of, plain

T = TypeVar("T")

#: Draws one of some.
Pick = Callable[[Sequence[Any]], Any]

#: In a prompt, the engine fails of it.
FAILING = "FAIL"

#: What models say, and what programs are given.
WORDS = (
    *("<b>", "&amp;", "it's", '"so"', "{x}", "{{x}}", "{{$input}}", "\ue000", "\ue0010:0:\ue001"),
    *("&lt;message&gt;", "</message>", "&amp;lt;", "&#x27;", "&nbsp;", "&", "\u2003", "\u2028"),
    *(
        "\r\n",
        "\x00",
        "\x1b",
        "%s",
        "\\",
        "",
        "a",
        "b c",
        "  ",
        "\n",
        "\t",
        "\U0001f99c",
        "e\u0301",
    ),
    *("<!--", "]]>", "<?x?>", "[1,", "{%", "{#", "0", "None"),
)
#: Constant texts of templates.
_TEXTS = ("Say: ", " and ", "; ", "\n", " ", "<p>", "</p>", "&amp; ", "a < b ", "\u00e9 ", "so.")
_WRAPPED = (
    '<message role="user">{}</message>',
    '<message role="system">{}</message> ',
    "<message role='assistant'> {} </message>",
    "{}",
    "{}",
)


@dataclass(frozen=True)
class Definition:
    """A prompt function."""

    name: str
    template_format: str
    template: str


@dataclass(frozen=True)
class RandomProgram:
    """Functions, of which the last is invoked, and with what.

    Attributes:
        definitions: In order; each may invoke those before.
        arguments: Of the invocation.
        is_planner_first: Whether the planner sees invocations before all of the user's filters.
    """

    definitions: tuple[Definition, ...]
    arguments: tuple[tuple[str, str], ...]
    is_planner_first: bool

    def build(self, url: str, *, is_planned: bool) -> Built:
        kernel = kernel_of(url, is_planned=False)
        built = Built(kernel)
        # The user's filters, one perhaps outside of the planner and one inside.
        if self.is_planner_first and is_planned:
            planner = ParrotPlanFilter(prompt_filters="ignore", function_filters="ignore")
            kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, planner)
        kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, built.invocation("outer"))
        if not self.is_planner_first and is_planned:
            planner = ParrotPlanFilter(prompt_filters="ignore", function_filters="ignore")
            kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, planner)
        kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, built.invocation("inner"))
        kernel.add_filter(FilterTypes.PROMPT_RENDERING, built.rendering)
        kernel.add_plugin(built.native, "n")
        for one in self.definitions:
            built.function = add(kernel, one.name, one.template, one.template_format)
        return built

    def given(self) -> KernelArguments:
        values: dict[str, Any] = dict(self.arguments)
        return KernelArguments(**values)


class Native:
    """Native functions that count how often they run."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    @kernel_function
    def shout(self, input: str = "") -> str:
        self.calls["shout"] += 1
        return input.upper() + "!"

    @kernel_function
    def word(self, other: str = "") -> str:
        self.calls["word"] += 1
        return WORDS[len(other) % len(WORDS)]

    @kernel_function
    def nothing(self) -> None:
        self.calls["nothing"] += 1

    @kernel_function
    def raises(self, input: str = "") -> str:
        self.calls["raises"] += 1
        if len(input) % 5 == 0:
            raise ValueError("as it does")
        return "passed"

    @kernel_function
    async def asks(self, kernel: Kernel, input: str = "") -> str:
        self.calls["asks"] += 1
        function = kernel.get_function("w", "f0")
        first = await kernel.invoke(function, KernelArguments(input=input))
        return str(first)

    @kernel_function
    async def asks_both(self, kernel: Kernel, input: str = "") -> str:
        self.calls["asks_both"] += 1
        function = kernel.get_function("w", "f0")
        given = [KernelArguments(input=input), KernelArguments(input="y")]
        results = await asyncio.gather(
            *(kernel.invoke(function, one) for one in given), return_exceptions=True
        )
        return " | ".join(
            type(one).__name__ if isinstance(one, BaseException) else str(one) for one in results
        )

    @kernel_function
    @traceable_step
    def quoted(self, input: str = "") -> str:
        return f"'{input}'"


@dataclass
class Built:
    """A kernel, and what its filters saw."""

    kernel: Kernel
    native: Native = field(default_factory=Native)
    seen: list[Any] = field(default_factory=list)
    function: KernelFunction | None = None

    def invocation(self, label: str) -> Any:
        async def note(context: Any, next: Any) -> None:
            name = context.function.fully_qualified_name
            self.seen.append((label, name, sorted(map(str, context.arguments.items()))))
            await next(context)
            text = "stream" if context.is_streaming else str(context.result)
            self.seen.append((label, name, "->", text))

        return note

    async def rendering(self, context: Any, next: Any) -> None:
        await next(context)
        name = context.function.fully_qualified_name
        self.seen.append(("prompt", name, context.rendered_prompt))

    async def run(self, program: RandomProgram, *, is_streaming: bool) -> Any:
        assert self.function is not None
        given = program.given()
        try:
            if not is_streaming:
                return plain(await self.kernel.invoke(self.function, given)), dict(given)
            items: Any = self.kernel.invoke_stream(self.function, given)
            return "".join([str(item[0]) async for item in items]), dict(given)
        except Exception as exc:  # noqa: BLE001 - errors are compared, too
            return failure(exc)


def random_program(pick: Pick) -> RandomProgram:
    """Draw a program."""
    definitions: list[Definition] = []
    for number in range(pick((2, 2, 3, 3, 4))):
        template_format = pick(FORMATS)
        drawing = _Drawing(pick, _WRITERS[template_format], number)
        definitions.append(Definition(f"f{number}", template_format, drawing.template()))
    values = ("input", "other", "flag")
    return RandomProgram(
        tuple(definitions),
        tuple((name, "".join(_words(pick))) for name in values),
        pick((True, False)),
    )


def _words(pick: Pick) -> list[str]:
    return [
        pick((*WORDS, FAILING) if pick(range(40)) == 0 else WORDS) for _ in range(pick((0, 1, 3)))
    ]


class _SemanticKernel:
    def variable(self, name: str) -> str:
        return f"{{{{${name}}}}}"

    def call(self, plugin: str, name: str, argument: str | None, draw: _Drawing) -> str:
        given = "" if argument is None else f" input=${argument}"
        if argument is not None and draw.pick((True, False)):
            given = draw.pick((f" ${argument}", " 'constant <b>'"))
        return f"{{{{{plugin}.{name}{given}}}}}"

    def control(self, draw: _Drawing) -> str:
        return draw.part()


class _Handlebars:
    def variable(self, name: str) -> str:
        return f"{{{{{name}}}}}"

    def call(self, plugin: str, name: str, argument: str | None, draw: _Drawing) -> str:
        return "{{" + self._call(plugin, name, argument, draw) + "}}"

    def control(self, draw: _Drawing) -> str:
        value = f"({self._call(*draw.callee(), draw)})"
        return str(
            draw.pick(
                (
                    f"{{{{#if flag}}}}{draw.part()}{{{{else}}}}{draw.part()}{{{{/if}}}}",
                    f"{{{{#if {value}}}}}{draw.part()}{{{{/if}}}}",
                    f"{{{{#each (array 'one' {value})}}}}[{{{{this}}}}]{{{{/each}}}}",
                    f"{{{{set 'kept' {value}}}}}{{{{get 'kept'}}}} {{{{kept}}}}",
                    f"{{{{concat 'a' {value} other}}}}",
                    f"{{{{w-f0 input={value}}}}}",
                )
            )
        )

    def _call(self, plugin: str, name: str, argument: str | None, draw: _Drawing) -> str:
        given = "" if argument is None else f" input={argument}"
        if argument is not None and draw.pick((True, False, False)):
            given = f" input=({self._call(*draw.callee(), draw)})"
        return f"{plugin}-{name}{given}"


class _Jinja:
    def variable(self, name: str) -> str:
        return f"{{{{ {name} }}}}"

    def call(self, plugin: str, name: str, argument: str | None, draw: _Drawing) -> str:
        after = draw.pick(("", "", "", "", "|trim", "|trim", "|e", "|upper"))
        return f"{{{{ {self._call(plugin, name, argument, draw)}{after} }}}}"

    def control(self, draw: _Drawing) -> str:
        value = self._call(*draw.callee(), draw)
        return str(
            draw.pick(
                (
                    f"{{% if flag %}}{draw.part()}{{% else %}}{draw.part()}{{% endif %}}",
                    f"{{% if {value} %}}{draw.part()}{{% endif %}}",
                    f"{{% for x in ['one', {value}] %}}[{{{{ x }}}}]{{% endfor %}}",
                    f"{{% set kept = {value} %}}{{{{ kept }}}} {{{{ kept }}}}",
                    f"{{{{ 'a' ~ {value} ~ other }}}}",
                    f"{{{{ w_f0(input={value}) }}}}",
                )
            )
        )

    def _call(self, plugin: str, name: str, argument: str | None, draw: _Drawing) -> str:
        given = "" if argument is None else f"input={argument}"
        if argument is not None and draw.pick((True, False, False)):
            given = f"input={self._call(*draw.callee(), draw)}"
        return f"{plugin}_{name}({given})"


_WRITERS: dict[str, Any] = {
    "semantic-kernel": _SemanticKernel(),
    "handlebars": _Handlebars(),
    "jinja2": _Jinja(),
}


class _Drawing:
    """Draws the template of one function.

    Args:
        pick: Draws.
        writer: Writes in a format.
        number: Of the function; it may invoke those before.
    """

    _MAX_CALLS = 3

    def __init__(self, pick: Pick, writer: Any, number: int) -> None:
        self.pick = pick
        self._writer = writer
        self._functions = [f"f{i}" for i in range(number)]
        self._num_left = self._MAX_CALLS

    def template(self) -> str:
        wrapped = self.pick(_WRAPPED)
        parts = [self.part() for _ in range(self.pick((1, 2, 3, 4)))]
        if self._functions and self._num_left:
            parts.append(str(self._writer.call(*self.callee(), self)))
        return str(self.pick(_TEXTS)) + str(wrapped).format("".join(parts).replace("{}", ""))

    def part(self) -> str:
        kind = self.pick(("text", "variable", "call", "call", "control"))
        if kind == "text" or (kind != "variable" and not self._num_left):
            return str(self.pick(_TEXTS))
        if kind == "variable":
            return str(self._writer.variable(self.pick(("input", "other", "missing"))))
        self._num_left -= 1
        if kind == "control" and self._functions:
            return str(self._writer.control(self))
        return str(self._writer.call(*self.callee(), self))

    def callee(self) -> tuple[str, str, str | None]:
        """Draw what is called: plugin, name, and the variable that is its input."""
        natives = ["shout", "word", "nothing", "quoted", "quoted"]
        natives += ["asks", "asks_both", "raises"] if self._functions else []
        has_functions = self._functions and self.pick((True, True, True, False))
        name = self.pick(self._functions if has_functions else natives)
        argument = None if name in ("word", "nothing") else self.pick((None, "input", "other"))
        return ("w" if has_functions else "n", name, argument)
