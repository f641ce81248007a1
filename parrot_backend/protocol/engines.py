"""Reply of ``GET /v1/engines``: the live engines, and what they have learnt of themselves."""

from __future__ import annotations

from parrot_backend.protocol.base import WireModel


class StepTimeView(WireModel):
    """How long a step of an engine takes: a sum of its work times these.

    Attributes:
        base_s: Of any step.
        per_prefill_token_s: Added by each prompt token.
        per_decode_s: Added by each request that decodes.
        per_context_token_s: Added by each KV token that decodes read.
        per_prefill_pair_s: Added by each unit of the prefill's attention work: chunk times context.
        num_samples: Steps that it was learnt from.
        error: Recent mean relative error of its predictions.
        slowdown: What recent steps took in the mean, divided by what is predicted for them.
    """

    base_s: float
    per_prefill_token_s: float
    per_decode_s: float
    per_context_token_s: float
    per_prefill_pair_s: float
    num_samples: int
    error: float
    slowdown: float = 1.0


class SharedAttentionView(WireModel):
    """How the engine's attention shares reads of KV. Counters run since it began.

    Attributes:
        state: ``on``, ``off``, or why requests never share reads there.
        steps: Steps that computed attention.
        shared_steps: Those of them in which requests shared reads.
        kv_tokens: Tokens of KV that each layer would have read without sharing.
        kv_tokens_read: Those that it read.
    """

    state: str
    steps: int
    shared_steps: int
    kv_tokens: int
    kv_tokens_read: int


class EngineView(WireModel):
    """One live engine.

    Attributes:
        id: Of this incarnation.
        models: Names it serves; the first is its default.
        max_model_len: Longest prompt plus output, in tokens.
        max_requests: Requests that may run at once.
        capacity_tokens: KV tokens that running requests may hold together.
        latency_capacity_tokens: The same while latency-sensitive work runs.
        running: Requests that run there.
        block_tokens: Tokens of one KV block; None if it does not tell.
        max_step_tokens: Prompt and output tokens of one step at most; None if it does not tell.
        call_overhead_s: What a call that is started alone takes beside the engine's own time, from
            the decision to start it until its end is known. None as long as there were no calls, or
            the engine does not tell its own time.
        server_call_s: The part of it that keeps the server busy: calls that are started together
            take it one after another.
        step_time: None as long as it has not made enough steps, or does not tell.
        shared_attention: None if it does not tell.
    """

    id: str
    models: tuple[str, ...]
    max_model_len: int
    max_requests: int
    capacity_tokens: int
    latency_capacity_tokens: int
    running: int
    block_tokens: int | None = None
    max_step_tokens: int | None = None
    call_overhead_s: float | None = None
    server_call_s: float | None = None
    step_time: StepTimeView | None = None
    shared_attention: SharedAttentionView | None = None


class EngineList(WireModel):
    """``GET /v1/engines``."""

    engines: tuple[EngineView, ...]
