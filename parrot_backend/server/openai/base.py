"""What the models of all requests have in common: strict types, and which fields are known.

A request may hold three kinds of fields: those that its model declares; those in ``NO_EFFECT``,
which are taken and do nothing here; and those in ``NEUTRAL_ONLY``, which are taken as long as they
ask for nothing. Everything else is an error that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError, from_json

from parrot_backend.errors import RequestError

#: Fields that are taken and have no effect: nothing is stored, billed or watched here.
NO_EFFECT = frozenset(
    (
        *("store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("prompt_cache_retention", "verbosity", "request_id", "stream_interval"),
        *("spaces_between_special_tokens", "add_special_tokens"),
    )
)

#: Fields that ask for what is not here, and the values with which they ask for nothing.
NEUTRAL_ONLY: Mapping[str, Sequence[object]] = {
    "logit_bias": ({},),
    "best_of": (1,),
    "suffix": ("",),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "functions": (),
    "function_call": ("none", "auto"),
    "use_beam_search": (False,),
    "length_penalty": (1.0,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "prompt_logprobs": (),
    "logprob_token_ids": ([],),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "documents": ([],),
    "chat_template": (),
    "mm_processor_kwargs": ({},),
    "media_io_kwargs": ({},),
    "priority": (0,),
    "cache_salt": (),
    "kv_transfer_params": (),
    "ec_transfer_params": (),
    "vllm_xargs": ({},),
    "repetition_detection": (),
    "thinking_token_budget": (),
    "watermarking": (False,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "return_prompt_text": (False,),
    "prompt_embeds": (),
    "moderation": (),
    "previous_response_id": (),
    "conversation": (),
    "background": (False,),
    "prompt": (),
    "max_tool_calls": (),
    "truncation": ("disabled",),
    "context_management": (),
}

#: Removed from vLLM; they would have no effect, and the output would not be what was asked for.
_REMOVED = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}


class RequestModel(BaseModel):
    """Base of a whole request; see the module for fields that it does not declare."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


class OpenAIModel(BaseModel):
    """Base of what stands in a request; unknown fields are errors, of which the first is told."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _knows_all_fields(self) -> Self:
        if self.model_extra:
            unknown = {"field": next(iter(self.model_extra))}
            raise PydanticCustomError("unknown_field", "Extra inputs are not permitted", unknown)
        return self


RequestT = TypeVar("RequestT", bound=RequestModel)


def parse_request(model: type[RequestT], body: bytes) -> RequestT:
    """Return a request.

    Raises:
        RequestError: ``malformed_json``, or ``invalid_request`` or ``unsupported`` with the field.
    """
    try:
        request = model.model_validate_json(body)
    except ValidationError as exc:
        raise _error_of(exc, body) from exc
    if b"NaN" in body or b"Infinity" in body:
        _check_numbers(body)
    if request.model_extra:
        _check_extra(request.model_extra)
    return request


def bad_field(field: str, message: str, code: str = "invalid_request") -> RequestError:
    """Return the error of a field with a wrong value."""
    return RequestError(code, message, field=field)


def _check_numbers(body: bytes) -> None:
    """Check that a body has no numbers that only look like JSON.

    Raises:
        RequestError: ``malformed_json``.
    """
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        raise RequestError("malformed_json", f"the body is not JSON: {exc}") from exc


def _check_extra(extra: Mapping[str, Any]) -> None:
    for name, value in extra.items():
        if name in NO_EFFECT or value is None:
            if name in NO_EFFECT or name in NEUTRAL_ONLY:
                continue
        elif name in NEUTRAL_ONLY:
            if value in NEUTRAL_ONLY[name]:
                continue
            raise bad_field(name, f"{name!r} is not supported by this server", "unsupported")
        if name in _REMOVED:
            instead = f"structured_outputs={{{_REMOVED[name]!r}: ...}}"
            raise bad_field(name, f"{name!r} is not supported; send {instead}", "unsupported")
        raise bad_field(name, f"there is no parameter {name!r}")


def _error_of(exc: ValidationError, body: bytes) -> RequestError:
    """Return what is wrong first; of the forms of a value, the one that comes closest."""
    problems = exc.errors(include_url=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return RequestError("malformed_json", f"the body is not JSON: {problems[0]['msg']}")
    content = from_json(body)
    first = problems[0]["loc"][:1]
    steps, problem = max(
        ((_steps(one["loc"], content), one) for one in problems if one["loc"][:1] == first),
        key=lambda pair: len(pair[0]),
    )
    if problem["type"] == "missing":
        steps = [*steps, problem["loc"][-1]]
    elif problem["type"].startswith("union_tag"):
        steps = [*steps, problem["ctx"]["discriminator"].strip("'")]
    elif problem["type"] == "unknown_field":
        steps = [*steps, problem["ctx"]["field"]]
    field = _field(steps)
    message = problem["msg"].removeprefix("Value error, ")
    return bad_field(field, f"{field}: {message}" if field else message)


def _steps(loc: Sequence[int | str], content: Any) -> list[int | str]:
    """Return the way to a place in a request, without the names of the forms it may have."""
    steps: list[int | str] = []
    for step in loc:
        if isinstance(content, dict):
            is_real = step in content
        else:
            is_real = isinstance(content, list) and isinstance(step, int) and step < len(content)
        if is_real:
            content = content[step]
            steps.append(step)
    return steps


def _field(steps: Sequence[int | str]) -> str:
    """Return a place as OpenAI names it, such as ``messages[0].content``."""
    named = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return "".join(named).removeprefix(".")
