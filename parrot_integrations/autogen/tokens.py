"""Estimated lengths of prompts. Pure."""

from __future__ import annotations

import math

from parrot_integrations.planning.calls import ModelCall

#: English text has about so many characters in a token of today's large models.
_CHARS_PER_TOKEN = 4.0


class TokenEstimate:
    """Counts characters, at the rate of characters per token of the prompts before.

    The tokeniser is the server's, and AutoGen counts without waiting. Before the first reply the
    rate is four; from then on it is what the replies' usage says of this model and its template.
    """

    def __init__(self) -> None:
        self._chars = 0
        self._tokens = 0

    def learn(self, call: ModelCall, prompt_tokens: int) -> None:
        """Take in how many tokens a prompt had; 0 is not known."""
        if prompt_tokens:
            self._chars += _chars(call)
            self._tokens += prompt_tokens

    def of(self, call: ModelCall) -> int:
        """Return about how many tokens a prompt has."""
        rate = self._chars / self._tokens if self._tokens else _CHARS_PER_TOKEN
        return math.ceil(_chars(call) / rate)


def _chars(call: ModelCall) -> int:
    """Return the characters of texts, calls of tools, and tools."""
    asked = (tool for message in call.messages or () for tool in message.tool_calls)
    written = [*call.texts, *(tool.model_dump_json() for tool in asked)]
    written += [tool.model_dump_json() for tool in call.options.tools]
    return max(1, sum(map(len, written)))
