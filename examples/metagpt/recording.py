"""Notes the calls of a run, whichever provider makes them."""

from __future__ import annotations

import functools
import time
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any

from examples.metagpt import workplace  # noqa: F401 - before metagpt

# isort: split
from metagpt.provider.openai_api import OpenAILLM
from metagpt.roles.role import Role

from parrot_integrations.graph import NameBook
from parrot_integrations.metagpt.runs import acting, name_of_call


@dataclass
class CallNote:
    """One call; times are seconds since the run began.

    Attributes:
        name: What the role did, and its name; the same in every way to run the team.
        cached_tokens: Prompt tokens that were in the engine's cache; None if it does not tell.
    """

    name: str
    prompt: str
    begin_s: float
    end_s: float | None = None
    reply: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None


@dataclass
class RunNotes:
    """What happened in a run."""

    calls: list[CallNote] = field(default_factory=list)
    begun_s: float = field(default_factory=time.perf_counter)
    names: NameBook = field(default_factory=NameBook)

    def now_s(self) -> float:
        """Return the time since the run began."""
        return time.perf_counter() - self.begun_s

    @property
    def num_answered(self) -> int:
        """How many calls have a reply."""
        return sum(call.reply is not None for call in self.calls)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the calls without their prompts."""
        return [{k: v for k, v in asdict(call).items() if k != "prompt"} for call in self.calls]


_notes: ContextVar[RunNotes | None] = ContextVar("notes", default=None)
_call: ContextVar[CallNote | None] = ContextVar("call", default=None)


def begin_notes() -> RunNotes:
    """Note the calls of the present context from now on."""
    notes = RunNotes()
    _notes.set(notes)
    return notes


def record(provider: type[OpenAILLM]) -> None:
    """Let a class of providers, and roles, tell what they do."""
    ask, update, run = provider.acompletion_text, OpenAILLM._update_costs, Role.run

    @functools.wraps(ask)
    async def noting(self: Any, messages: Any, *args: Any, **kwargs: Any) -> str:
        notes = _notes.get()
        if notes is None:
            return await ask(self, messages, *args, **kwargs)
        prompt = "".join(message["content"] for message in messages)
        note = CallNote(notes.names.unique(name_of_call()), prompt, notes.now_s())
        notes.calls.append(note)
        token = _call.set(note)
        try:
            note.reply = await ask(self, messages, *args, **kwargs)
        finally:
            _call.reset(token)
        note.end_s = notes.now_s()
        return note.reply

    @functools.wraps(update)
    def counting(self: Any, usage: Any, *args: Any, **kwargs: Any) -> None:
        note = _call.get()
        if note is not None and usage is not None and not isinstance(usage, dict):
            note.prompt_tokens = usage.prompt_tokens
            note.completion_tokens = usage.completion_tokens
            details = getattr(usage, "prompt_tokens_details", None)
            note.cached_tokens = None if details is None else details.cached_tokens
        return update(self, usage, *args, **kwargs)

    @functools.wraps(run)
    async def named(self: Any, *args: Any, **kwargs: Any) -> Any:
        with acting(self):
            return await run(self, *args, **kwargs)

    provider.acompletion_text = noting
    OpenAILLM._update_costs = counting
    Role.run = named
