"""What both models have in common: fields, their reading, and the way to the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.utils import from_env, secret_from_env
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator

from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.client import ParrotClient
from parrot_integrations.langchain.annotations import current_annotation
from parrot_integrations.langchain.options import (
    OUTPUT_NAMES,
    CallSpec,
    read_call,
)
from parrot_integrations.planning.annotations import Perf, default_perf, to_criteria
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.submits import Terms
from parrot_integrations.settings import ClientSettings, resolve_settings


class ParrotFields(BaseModel):
    """Fields of ``ChatParrot`` and ``ParrotLLM``; None leaves a value to the server."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        populate_by_name=True,
        protected_namespaces=(),
    )

    model: str | None = Field(default=None, validation_alias=AliasChoices("model", "model_name"))
    """Name of the model; None takes the server's default."""
    base_url: str | None = Field(default_factory=from_env("PARROT_BASE_URL", default=None))
    """Address of the server; from ``PARROT_BASE_URL`` if not given."""
    api_key: SecretStr | None = Field(
        default_factory=secret_from_env("PARROT_API_KEY", default=None)
    )
    """Sent as a bearer token; from ``PARROT_API_KEY`` if not given."""
    timeout: float | None = Field(
        default=None, gt=0, validation_alias=AliasChoices("timeout", "request_timeout")
    )
    """Longest wait for one reply in seconds; then the call is given up."""
    max_retries: int = Field(default=2, ge=0)
    """How often a request is sent again when the server is busy or out of reach."""

    max_tokens: int | None = Field(
        default=None, ge=1, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    """Longest reply in tokens; None is 256. A longer one ends with finish reason ``length``."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """None is 1."""
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = Field(
        default=None, validation_alias=AliasChoices("stop", "stop_sequences")
    )
    """Texts that end a reply and do not become part of it."""
    min_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    n: int | None = None
    """How many replies to one prompt; not when streaming."""
    logprobs: bool | int | None = None
    """Whether to tell the probability of each token."""
    top_logprobs: int | None = None
    """How many alternatives to each token to tell, too."""

    streaming: bool = False
    """Whether ``invoke`` streams for callbacks."""
    app: str | None = None
    """Name of the application, for people and for metrics."""
    perf: Perf | None = None
    """How urgent replies are: ``latency``, ``throughput``, or ``Criteria`` with targets. None is
    ``throughput`` for batches and unstated for everything else."""

    client: ParrotClient | None = Field(default=None, exclude=True, repr=False)
    """Replaces the blocking client that all models of a process share."""
    async_client: AsyncParrotClient | None = Field(default=None, exclude=True, repr=False)
    """Replaces the awaiting client that all models of an event loop share."""

    @field_validator("stop", mode="before")
    @classmethod
    def _as_list(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given

    @property
    def settings(self) -> ClientSettings:
        """Where calls are sent, and how patiently.

        Raises:
            NotConfigured: No server is known.
        """
        key = None if self.api_key is None else self.api_key.get_secret_value()
        found = resolve_settings(self.base_url, key)
        return ClientSettings(found.base_url, found.api_key, max_attempts=self.max_retries + 1)

    @property
    def connection(self) -> Connection:
        """The way to the server."""
        own = self.client or self.async_client
        settings = self.settings if own is None else own.settings
        return Connection(settings, self.client, self.async_client)

    def to_terms(self, config_metadata: Mapping[str, Any] | None = None, **kwargs: Any) -> Terms:
        """Return how a call would be sent, apart from what it generates.

        Args:
            config_metadata: ``config["metadata"]`` of the run.
            kwargs: Parameters of the call.

        Raises:
            ValueError: A parameter is unknown or wrong.
        """
        return self._terms(self._read_call(None, kwargs), config_metadata)

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Names of the environment variables that hold secret fields."""
        return {"api_key": "PARROT_API_KEY"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Fields that are kept when a model is serialised."""
        return {} if self.base_url is None else {"base_url": self.base_url}

    def _output_params(self) -> dict[str, Any]:
        """Return everything of the model that decides on the output, if it is given."""
        values = {name: getattr(self, name) for name in OUTPUT_NAMES}
        return {name: value for name, value in values.items() if value is not None}

    def _cache_key(self) -> dict[str, Any]:
        """Return what LangChain's caches tell models apart by: all that decides on the output."""
        params = self._output_params()
        if "stop" in params:
            # LangChain puts the call's own stop texts, even if there are none, under "stop".
            params["stop_sequences"] = params.pop("stop")
        return {"base_url": self.base_url, **params}

    def _read_call(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> CallSpec:
        return read_call({**self._output_params(), "timeout": self.timeout}, stop, kwargs)

    def _terms(self, spec: CallSpec, config_metadata: Mapping[str, Any] | None) -> Terms:
        """Return how a call is sent; the call's own wishes win, then the annotations."""
        annotation = current_annotation(config_metadata)
        return Terms(
            app=spec.app or annotation.app or self.app or "",
            metadata=annotation.labels(),
            criteria=to_criteria(spec.perf or annotation.perf or self.perf or default_perf()),
            timeout_s=spec.timeout_s,
        )
