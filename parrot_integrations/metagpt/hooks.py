"""Putting the provider, and what it needs to know of teams, into MetaGPT."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Not `metagpt.provider` first: it and `metagpt.roles` import each other.
import metagpt.roles
from metagpt.configs.llm_config import LLMType
from metagpt.provider.llm_provider_registry import LLM_REGISTRY, register_provider
from metagpt.team import Team
from metagpt.utils.common import CodeParser

from parrot_integrations.metagpt.parsing import code_of
from parrot_integrations.metagpt.provider import ParrotLLM
from parrot_integrations.metagpt.runs import acting, current_run, new_run
from parrot_integrations.planning.options import to_sampling

#: Takes back what ``install`` did.
Uninstall = Callable[[], None]


def install(
    *,
    key: LLMType = LLMType.OPENAI,
    extra: Mapping[str, Any] | None = None,
    shares_first: bool = False,
) -> Uninstall:
    """Let MetaGPT's configuration of an OpenAI model mean a Parrot server.

    Call it before roles and teams are made. Beside the provider, it wraps four functions of
    MetaGPT, which all do and return what they did: ``Team.run`` (a session begins and ends),
    ``Team.run_project`` (the idea is a value of it), ``Role.run`` (calls are named after their
    role) and ``CodeParser.parse_code`` (what it cuts out is a part of a value).

    Args:
        key: The ``api_type`` that is served; MetaGPT's configuration takes no new ones.
        extra: Parameters of every call that MetaGPT has no setting for, in the words of OpenAI's
            API (``top_k``, ``min_tokens``, ``response_format``, ...).
        shares_first: Put the system message, which names the role, at the end of the user's. All
            that the prompts of several roles have in common then comes first, and is computed once.
            This changes the prompts, and so the replies.

    Several times, the last of a key is in force, and MetaGPT is wrapped once.

    Returns:
        What takes all of it back, in any order with others; to call it again does nothing.

    Raises:
        ValueError: ``extra`` has a wrong value.
    """
    to_sampling(extra or {})
    settings = {"extra": dict(extra or {}), "shares_first": shares_first}
    installed = _Installed(key, type("ParrotLLM", (ParrotLLM,), settings))
    if not _in_order:
        _wrap_all()
    _in_order.append(installed)
    _register(key)

    def uninstall() -> None:
        if installed in _in_order:
            _in_order.remove(installed)
            _register(key)
            if not _in_order:
                _unwrap_all()

    return uninstall


@dataclass(frozen=True, slots=True, eq=False)
class _Installed:
    """One call of ``install`` that has not been taken back."""

    key: LLMType
    provider: type[ParrotLLM]


#: The last one of a key is in force.
_in_order: list[_Installed] = []
#: What MetaGPT had in the places of what is registered and wrapped; None if nothing.
_providers_before: dict[LLMType, Any] = {}
_wrapped_before: list[tuple[type, str, Any]] = []


def _register(key: LLMType) -> None:
    providers = [installed.provider for installed in _in_order if installed.key == key]
    before = _providers_before.setdefault(key, LLM_REGISTRY.providers.get(key))
    provider = providers[-1] if providers else before
    if provider is None:
        del LLM_REGISTRY.providers[key]
    else:
        register_provider(key)(provider)
    if not providers:
        del _providers_before[key]


def _wrap_all() -> None:
    _wrap(Team, "run", _in_a_run)
    _wrap(Team, "run_project", _with_the_idea)
    _wrap(metagpt.roles.Role, "run", _as_the_role)
    _wrap(CodeParser, "parse_code", _noting_the_part)


def _wrap(owner: type, name: str, around: Callable[[Any], Any]) -> None:
    original = owner.__dict__[name]
    _wrapped_before.append((owner, name, original))
    setattr(owner, name, around(original))


def _unwrap_all() -> None:
    while _wrapped_before:
        setattr(*_wrapped_before.pop())


def _in_a_run(run: Any) -> Any:
    @functools.wraps(run)
    async def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        async with new_run() as found:
            if self.idea:
                found.begin_with(self.idea)
            return await run(self, *args, **kwargs)

    return wrapped


def _with_the_idea(run_project: Any) -> Any:
    @functools.wraps(run_project)
    def wrapped(self: Any, idea: str, *args: Any, **kwargs: Any) -> Any:
        found = current_run()
        if found is not None:
            found.begin_with(idea)
        return run_project(self, idea, *args, **kwargs)

    return wrapped


def _as_the_role(run: Any) -> Any:
    @functools.wraps(run)
    async def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        with acting(self):
            return await run(self, *args, **kwargs)

    return wrapped


def _noting_the_part(parse_code: Any) -> Any:
    function = parse_code.__func__

    @functools.wraps(function)
    def wrapped(cls: Any, block: str | None, text: str, lang: str = "") -> Any:
        code = function(cls, block, text, lang)
        found = current_run()
        if found is not None and not block and isinstance(code, str):
            found.note_part(text, code, functools.partial(code_of, lang=lang))
        return code

    return classmethod(wrapped)
