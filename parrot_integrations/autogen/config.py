"""What a client is made from, as AutoGen writes components down: as data, without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from autogen_core.models import ModelFamily, ModelInfo
from pydantic import BaseModel, ConfigDict, Field

from parrot_integrations.criteria import Criteria
from parrot_integrations.errors import NotConfigured
from parrot_integrations.settings import ClientSettings, resolve_settings


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

    There is no secret among them: who loads a component takes the key in ``PARROT_API_KEY``, and
    the credentials of ``PARROT_BASE_URL`` if that is the same address.
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


def as_data(create_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments that can be written down: a class as its schema."""
    form = create_args.get("response_format")
    if not (isinstance(form, type) and issubclass(form, BaseModel)):
        return dict(create_args)
    schema = {"name": form.__name__, "schema": form.model_json_schema()}
    return {**create_args, "response_format": {"type": "json_schema", "json_schema": schema}}


def public_address(settings: ClientSettings) -> str:
    """Return a server's address without secrets."""
    return settings.public_url.rstrip("/")


def whole_address(public: str | None) -> str | None:
    """Return an address with the secrets that ``PARROT_BASE_URL`` has for it, if it is the same."""
    try:
        known = resolve_settings()
    except NotConfigured:
        return public
    return known.base_url if public_address(known) == public else public
