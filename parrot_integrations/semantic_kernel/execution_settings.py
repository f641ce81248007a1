"""Execution settings: the parameters of calls, in Semantic Kernel's words.

A value that is None is the server's default. Keys that are not known land in ``extension_data``, as
with every other service, and are ignored with a warning.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings

from parrot_backend.protocol import Scalar
from parrot_integrations.planning.annotations import Perf
from parrot_integrations.semantic_kernel.structure import check_response_format

_SET_BY_SERVICE = (
    "Do not set this manually. It is set by the service based on the function choice configuration."
)


class ParrotPromptExecutionSettings(PromptExecutionSettings):
    """Settings of both connectors.

    Attributes:
        ai_model_id: Replaces the service's model.
        max_tokens: Longest reply in tokens; None is 256.
        number_of_responses: How many replies to one prompt; not when streaming.
        stop: Texts that end a reply and do not become part of it.
        logprobs: Whether to tell the probability of each token, or of how many alternatives.
        top_logprobs: How many alternatives to each token to tell, too.
        response_format: The form of the reply: a pydantic class or another type, a form of Parrot's
            protocol, or OpenAI's ``json_object`` and ``json_schema``.
        perf: How urgent the reply is: ``latency``, ``throughput``, or criteria with targets.
        app: Name of the application, for people and for metrics.
        session: What belongs together, for example a conversation.
        stage: Which part of the program this is.
        timeout_s: Longest wait for the reply; then the call is given up.
    """

    ai_model_id: Annotated[str | None, Field(min_length=1)] = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=0)] = None
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    stop: str | list[str] | None = None
    min_tokens: Annotated[int | None, Field(ge=0)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    repetition_penalty: Annotated[float | None, Field(gt=0, le=2)] = None
    ignore_eos: bool | None = None
    number_of_responses: Annotated[int | None, Field(ge=1, le=128, serialization_alias="n")] = None
    logprobs: bool | Annotated[int, Field(ge=0, le=20)] | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    response_format: Any = None
    perf: Perf | None = None
    app: str | None = None
    session: str | None = None
    stage: str | None = None
    timeout_s: Annotated[float | None, Field(gt=0)] = None

    @field_validator("response_format")
    @classmethod
    def _known_form(cls, given: Any) -> Any:
        check_response_format(given)
        return given


class ParrotTextPromptExecutionSettings(ParrotPromptExecutionSettings):
    """Settings of ``ParrotTextCompletion``."""


class ParrotChatPromptExecutionSettings(ParrotPromptExecutionSettings):
    """Settings of ``ParrotChatCompletion``.

    Attributes:
        max_completion_tokens: OpenAI's newer word for ``max_tokens``, which wins.
        parallel_tool_calls: Whether the model may ask for several functions at once.
        chat_template_kwargs: Further arguments of the model's chat template.
    """

    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    tools: Annotated[list[dict[str, Any]] | None, Field(description=_SET_BY_SERVICE)] = None
    tool_choice: Annotated[str | dict[str, Any] | None, Field(description=_SET_BY_SERVICE)] = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Scalar] | None = None
