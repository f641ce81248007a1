"""Whether the engines can do what a call asks of its tools."""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.core.chat import ChatOptions
from parrot_backend.core.events import EngineInfo
from parrot_backend.errors import RequestError


def check_tools(chat: ChatOptions, serving: Iterable[EngineInfo]) -> None:
    """Reject a free choice of tools where no engine would notice their calls.

    A forced call has a form that every engine knows. While no engine serves the model, the one
    that comes decides.

    Args:
        chat: What the call asks for.
        serving: The engines that serve its model.

    Raises:
        RequestError: ``tools_unsupported``.
    """
    if not chat.may_call or chat.must_call:
        return
    infos = list(serving)
    if infos and not any(info.finds_tool_calls for info in infos):
        raise RequestError(
            "tools_unsupported",
            "no engine has a parser for this model's calls of tools: start the server with "
            "--tool-call-parser, or set tool_choice to required, none or one tool",
        )
