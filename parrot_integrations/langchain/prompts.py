"""Prompt templates: the real ones, formatted with markers. No callback hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import BasePromptTemplate, PromptTemplate
from langchain_core.utils import mustache

from parrot_integrations.langchain.symbolic import GeneratedMessage, HostValue, is_symbolic
from parrot_integrations.planning.symbols import CannotPlan, Markers

#: Makes a value of the client: where it comes from, and why it is the client's.
MakeHostValue = Callable[[str, str], HostValue]


def trace_prompt(
    template: BasePromptTemplate[Any], value: Any, markers: Markers, host_value: MakeHostValue
) -> PromptValue:
    """Return what a template makes of a value, with markers for what is known only later.

    Raises:
        CannotPlan: It does more to a symbolic value than to place it, or runs code of the user.
    """
    if getattr(template, "example_selector", None) is not None:
        raise CannotPlan("its examples are chosen by code of the client")
    inputs = _inputs(template, value)
    template, late = _without_callables(template, host_value)
    known = {**template.partial_variables, **late, **inputs}
    symbolic = {name for name, item in known.items() if is_symbolic(item, markers)}
    if symbolic and (templates := list(_mustaches(template))):
        for one in templates:
            _check_sections(one, symbolic)
        inputs = {name: _disarmed(item) for name, item in {**late, **inputs}.items()}
        late = {}
    try:
        return template.format_prompt(**{**late, **inputs})
    except CannotPlan:
        raise
    except Exception as exc:
        # Whatever the user's template does with a marker; if it fails of the values themselves,
        # the run will say so.
        raise CannotPlan(f"{type(exc).__name__}: {str(exc)[:120]}") from exc


def _inputs(template: BasePromptTemplate[Any], value: Any) -> dict[str, Any]:
    names = template.input_variables
    if isinstance(value, HostValue):
        if len(names) == 1:
            return {names[0]: value}
        return {name: value[name] for name in names}
    if isinstance(value, Mapping):
        missing = [name for name in names if name not in value]
        if missing:
            raise CannotPlan(f"the input lacks {missing[0]!r}")
        return dict(value)
    if isinstance(value, GeneratedMessage):
        raise CannotPlan("a message is put into a text: add StrOutputParser() after the model")
    if len(names) != 1:
        raise CannotPlan("the input is no mapping")
    return {names[0]: value}


def _without_callables(
    template: BasePromptTemplate[Any], host_value: MakeHostValue
) -> tuple[BasePromptTemplate[Any], dict[str, Any]]:
    """Return the template without partial variables that are functions, and what stands for them.

    They are run once, by the run: what they return may change, and they may do more than return.
    """
    for nested in _string_templates(template):
        if nested is not template and any(map(callable, nested.partial_variables.values())):
            raise CannotPlan("a message of it has a function as a partial variable")
    called = [name for name, item in template.partial_variables.items() if callable(item)]
    if not called:
        return template, {}
    kept = {n: item for n, item in template.partial_variables.items() if n not in called}
    late = {name: host_value(name, "a function of the prompt makes it") for name in called}
    return template.model_copy(update={"partial_variables": kept}), late


def _string_templates(template: Any) -> Iterator[PromptTemplate]:
    if isinstance(template, PromptTemplate):
        yield template
        return
    for message in getattr(template, "messages", ()):
        prompts = getattr(message, "prompt", ())
        for prompt in prompts if isinstance(prompts, list | tuple) else (prompts,):
            if isinstance(prompt, PromptTemplate):
                yield prompt


def _mustaches(template: BasePromptTemplate[Any]) -> Iterator[str]:
    """Yield the templates in Mustache, if there are any."""
    found = list(_string_templates(template))
    formats = {one.template_format for one in found}
    if "mustache" not in formats:
        return
    if len(formats) > 1:
        raise CannotPlan("it mixes Mustache with another format")
    yield from (one.template for one in found)


def _check_sections(template: str, symbolic: set[str]) -> None:
    """Refuse sections that depend on symbolic values: Mustache would decide by the marker."""
    for kind, name in mustache.tokenize(template):
        is_section = "section" in kind or kind == "partial"
        if is_section and (kind == "partial" or name.split(".")[0] in symbolic or name == "."):
            raise CannotPlan(f"a section of the template depends on {name!r}")


def _disarmed(value: Any) -> Any:
    """Return a value with plain markers: Mustache's renderer compares every value."""
    if isinstance(value, Mapping):
        return {key: _disarmed(item) for key, item in value.items()}
    return str(value) if isinstance(value, str | HostValue) else value
