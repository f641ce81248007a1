"""What both connectors have in common: their making, their way to the server, their annotations."""

from __future__ import annotations

import copy
import logging
from abc import ABC
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.exceptions.service_exceptions import ServiceInitializationError
from semantic_kernel.services.ai_service_client_base import AIServiceClientBase

from parrot_backend.protocol import Scalar
from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.errors import NotConfigured
from parrot_integrations.planning.annotations import (
    Annotation,
    Perf,
    annotated,
    default_perf,
    label,
    to_criteria,
)
from parrot_integrations.planning.calls import CallOptions
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.submits import Terms
from parrot_integrations.semantic_kernel.errors import InvalidSettings, NoServer
from parrot_integrations.semantic_kernel.execution_settings import ParrotPromptExecutionSettings
from parrot_integrations.semantic_kernel.options import DEFAULT_MODEL, to_options
from parrot_integrations.semantic_kernel.settings import ParrotSettings
from parrot_integrations.settings import ClientSettings, resolve_settings

logger = logging.getLogger(__name__)

_HOW_TO_CONFIGURE = (
    "No Parrot server is known. Start one with `parrot serve` and set PARROT_HOST or "
    "PARROT_BASE_URL to the address it prints, or pass host= to the service."
)

#: What Semantic Kernel itself puts into ``extension_data``.
_NOT_FOR_US = frozenset(
    {
        "function_choice_behavior",
        "messages",
        "prompt",
        "stream",
        "stream_options",
        "structured_json_response",
    }
)


class ParrotService(AIServiceClientBase, ABC):
    """Base of the connectors.

    Args:
        ai_model_id: Name of the model; ``default`` is the server's own default.
        service_id: What the kernel finds the service by; the model's name if not given.
        host: Address of the server.
        api_key: Sent as a bearer token.
        app: Name of the application, for people and for metrics.
        perf: How urgent replies are.
        timeout_s: Longest wait for one reply; then the call is given up.
        client: Replaces the client that all services of an event loop share, and ``host``.
        env_file_path: A ``.env`` file to read what the environment does not tell.
        env_file_encoding: Its encoding.

    Raises:
        ServiceInitializationError: The model's name is empty, or no server is known.
    """

    MODEL_PROVIDER_NAME: ClassVar[str] = "parrot"
    #: Which of ``ParrotSettings`` names the model.
    MODEL_SETTING: ClassVar[str]

    endpoint: ClientSettings = Field(exclude=True, repr=False)
    app: str | None = None
    perf: Perf | None = None
    timeout_s: float | None = Field(default=None, gt=0)
    annotation: Annotation = Annotation()
    client: AsyncParrotClient | None = Field(default=None, exclude=True, repr=False)

    def __init__(
        self,
        ai_model_id: str | None = None,
        *,
        service_id: str | None = None,
        host: str | None = None,
        api_key: str | None = None,
        app: str | None = None,
        perf: Perf | None = None,
        timeout_s: float | None = None,
        client: AsyncParrotClient | None = None,
        env_file_path: str | None = None,
        env_file_encoding: str | None = None,
    ) -> None:
        """Read what is not given from the environment."""
        told: dict[str, Any] = {self.MODEL_SETTING: ai_model_id, "host": host, "api_key": api_key}
        told |= {"env_file_path": env_file_path, "env_file_encoding": env_file_encoding}
        try:
            given = ParrotSettings(**told)
            model = getattr(given, self.MODEL_SETTING)
            fields: dict[str, Any] = {
                "ai_model_id": DEFAULT_MODEL if model is None else model,
                "service_id": service_id or "",
                "endpoint": _endpoint(given) if client is None else client.settings,
                "app": app,
                "perf": perf,
                "timeout_s": timeout_s,
                "client": client,
            }
            super().__init__(**fields)
        except ValidationError as exc:
            # The error shows values, and one of them may be the key.
            problems = "; ".join(
                f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()
            )
            raise ServiceInitializationError(
                f"Failed to create a {type(self).__name__}: {problems}"
            ) from None

    @property
    def connection(self) -> Connection:
        """The way to the server."""
        return Connection(self.endpoint, own_async_client=self.client)

    def service_url(self) -> str:
        """Return the address of the server, for telemetry: without credentials and query."""
        return self.endpoint.public_url

    def with_session(
        self,
        *,
        app: str | None = None,
        session: str | None = None,
        stage: str | None = None,
        perf: Perf | None = None,
        metadata: Mapping[str, Scalar] | None = None,
    ) -> Self:
        """Return a copy whose calls are annotated, wherever they are made.

        ``parrot_session`` does the same for a block of code, but the actors of Semantic Kernel's
        runtime do not see the block.

        Args:
            app: Name of the application.
            session: What belongs together, for example a conversation.
            stage: Which part of the program this is.
            perf: How urgent the replies are.
            metadata: Further labels.
        """
        inner = Annotation(app, session, stage, perf, dict(metadata or {}))
        return self.model_copy(update={"annotation": inner.over(self.annotation)})

    def get_prompt_execution_settings_from_settings(
        self, settings: PromptExecutionSettings
    ) -> PromptExecutionSettings:
        """Return settings as this service's own.

        Raises:
            InvalidSettings: One of them has a wrong value.
        """
        try:
            own = super().get_prompt_execution_settings_from_settings(settings)
        except ValueError as exc:
            raise _invalid(exc) from exc
        unknown = own.extension_data.keys() - own.keys - _NOT_FOR_US
        if unknown:
            _warn_of(type(own).__name__, tuple(sorted(unknown)))
        return own

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy all but the client, which belongs to its event loop."""
        known = {} if memo is None else memo
        known[id(self.client)] = self.client
        return super().__deepcopy__(known)

    # --- for the connectors -------------------------------------------------------------------

    def _own(self, settings: PromptExecutionSettings) -> ParrotPromptExecutionSettings:
        own = self.get_prompt_execution_settings_from_settings(settings)
        assert isinstance(own, ParrotPromptExecutionSettings)
        return own

    def _own_copy(self, settings: PromptExecutionSettings) -> ParrotPromptExecutionSettings:
        """Return a copy of settings as this service's own."""
        return self._own(copy.deepcopy(settings))

    def _model_of(self, settings: ParrotPromptExecutionSettings) -> str:
        return settings.ai_model_id or self.ai_model_id

    def _options(self, settings: ParrotPromptExecutionSettings) -> list[CallOptions]:
        try:
            return to_options(settings, self._model_of(settings))
        except ValueError as exc:
            raise _invalid(exc) from exc

    def _terms(self, settings: ParrotPromptExecutionSettings, author: str | None = None) -> Terms:
        """Return how a call is sent; the call's own wishes win, the service's come last."""
        own = Annotation(settings.app, settings.session, settings.stage, settings.perf)
        last = Annotation(app=self.app, stage=author, perf=self.perf)
        told = own.over(self.annotation).over(annotated()).over(last)
        try:
            criteria = to_criteria(told.perf or default_perf())
        except ValueError as exc:
            raise _invalid(exc) from exc
        return Terms(
            app=label(told.app) or "",
            metadata=told.labels(),
            stage=told.call_stage,
            criteria=criteria,
            timeout_s=settings.timeout_s or self.timeout_s,
        )


def only_one(settings: ParrotPromptExecutionSettings) -> None:
    """Make sure that one reply is wanted.

    Raises:
        InvalidSettings: There are several, which cannot be streamed.
    """
    if (settings.number_of_responses or 1) > 1:
        raise InvalidSettings(
            "several_streams", "number_of_responses must be 1 to stream, or stream several calls"
        )


def _endpoint(given: ParrotSettings) -> ClientSettings:
    key = None if given.api_key is None else given.api_key.get_secret_value()
    address = given.host or given.base_url
    try:
        return resolve_settings(address, key)
    except NotConfigured as exc:
        # The services' arguments have other names than the client's.
        wrong = f"The host must begin with http:// or https://, not {address!r}."
        raise NoServer(exc.code, wrong if address else _HOW_TO_CONFIGURE) from exc


def _invalid(exc: ValueError) -> InvalidSettings:
    return InvalidSettings("invalid_settings", str(exc))


@lru_cache(maxsize=256)
def _warn_of(kind: str, names: tuple[str, ...]) -> None:
    """Warn of settings for other services; once for the same ones."""
    logger.warning("%s does not know, and ignores: %s", kind, ", ".join(names))
