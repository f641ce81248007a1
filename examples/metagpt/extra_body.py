"""What MetaGPT's own provider sends beside the parameters that it has settings for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from examples.metagpt import workplace  # noqa: F401 - before metagpt

# isort: split
from metagpt.provider.openai_api import OpenAILLM


def send_in_body(extra: Mapping[str, Any]) -> None:
    """Let OpenAI's provider send parameters that it has no setting for."""
    original = OpenAILLM._cons_kwargs

    def with_extra(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**original(self, *args, **kwargs), "extra_body": dict(extra)}

    OpenAILLM._cons_kwargs = with_extra
