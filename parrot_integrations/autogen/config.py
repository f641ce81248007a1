"""What a client is made from, as AutoGen writes components down: without the key."""

from __future__ import annotations

from typing import Any, Literal

from autogen_core.models import ModelFamily, ModelInfo
from pydantic import BaseModel, ConfigDict, Field

from parrot_integrations.criteria import Criteria


def default_model_info() -> ModelInfo:
    """Return what Parrot does with every chat model that has a chat template."""
    return ModelInfo(
        vision=False,
        function_calling=True,
        json_output=True,
        structured_output=True,
        multiple_system_messages=True,
        family=ModelFamily.UNKNOWN,
    )


class ParrotClientConfig(BaseModel):
    """The arguments of ``ParrotChatCompletionClient``.

    There is no key among them: who loads a component takes the one in ``PARROT_API_KEY``.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    base_url: str | None = None
    app: str | None = None
    session: str | None = None
    stage: str | None = None
    perf: Literal["latency", "throughput"] | Criteria | None = None
    timeout_s: float | None = Field(default=None, gt=0)
    context_tokens: int | None = Field(default=None, ge=1)
    info: dict[str, Any] | None = None
    create_args: dict[str, Any] = Field(default_factory=dict)
