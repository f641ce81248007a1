"""Engines that cannot be, and requests that can never run on an engine."""

from __future__ import annotations

from parrot_backend.sim.engine_seam import SimRequest
from parrot_backend.sim.spec import EngineSpec


def check(spec: EngineSpec) -> None:
    """Check that the numbers of an engine go together.

    Raises:
        ValueError: They do not.
    """
    positive = {
        "num_blocks": spec.num_blocks,
        "block_tokens": spec.block_tokens,
        "max_requests": spec.max_requests,
        "max_model_len": spec.max_model_len,
    }
    for name, value in positive.items():
        if value < 1:
            raise ValueError(f"{name} of an engine must be at least 1, not {value}")
    if not 0.0 <= spec.server_call_s <= spec.call_overhead_s < float("inf"):
        raise ValueError(
            f"overheads of {spec.call_overhead_s} s, {spec.server_call_s} s of it in the server, "
            "cannot be"
        )
    if spec.max_step_tokens < spec.max_requests:
        raise ValueError(
            f"a step of {spec.max_step_tokens} tokens is too short for {spec.max_requests} requests"
        )


def problem_of(request: SimRequest, spec: EngineSpec) -> str:
    """Return why a request can never run on an engine, or an empty text."""
    tokens = request.prompt_tokens + request.output_tokens
    if not request.prompt_tokens:
        return "the prompt is empty"
    if request.output_tokens < 1 and not request.is_fill:
        return f"an output of {request.output_tokens} tokens"
    if tokens > spec.max_model_len:
        return f"{tokens} tokens of prompt and output, and the model takes {spec.max_model_len}"
    most = spec.num_blocks * spec.block_tokens
    if tokens > most:
        return f"{tokens} tokens of prompt and output, and the KV memory holds {most}"
    return ""
