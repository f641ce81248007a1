"""OpenAI's client for what MetaGPT sends itself: it adds what a call belongs to, and its model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from openai import AsyncOpenAI
from openai._models import FinalRequestOptions

#: Stands for the server's own default model, where a name must be given.
DEFAULT_MODEL = "default"

_CHAT = "/chat/completions"


class EndpointClient(AsyncOpenAI):
    """A client of a Parrot server's OpenAI endpoint.

    Args:
        beside: Returns what goes beside a call's parameters, or in place of them.
        **given: The arguments of OpenAI's client.
    """

    def __init__(
        self, beside: Callable[[], Awaitable[Mapping[str, Any]]] | None = None, **given: Any
    ) -> None:
        super().__init__(**given)
        self._beside = beside
        self._served: str | None = None

    async def _prepare_options(self, options: FinalRequestOptions) -> FinalRequestOptions:
        # OpenAI's hook for what derives from its client.
        if options.url == _CHAT and isinstance(options.json_data, Mapping):
            beside = {} if self._beside is None else await self._beside()
            body = {**options.json_data, **beside}
            if body.get("model") == DEFAULT_MODEL:
                body["model"] = await self._default_model()
            options.json_data = body
        return options

    async def _default_model(self) -> str:
        """Return the name of the server's default model; until it has one, the word itself."""
        if self._served is None:
            served = (await self.models.list()).data
            self._served = served[0].id if served else None
        return self._served or DEFAULT_MODEL
