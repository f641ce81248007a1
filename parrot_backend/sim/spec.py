"""What is simulated: engines, networks, and how clients reach the server."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, Protocol

from parrot_backend.core.step_time import StepWork

#: How an engine orders and paces its own requests: as vLLM does, or as vLLM with our plug-in.
EngineRules = Literal["vllm", "parrot"]

#: Whether a program is sent as one graph, or call by call by a client that waits in between.
ClientKind = Literal["graph", "calls"]


class LatencyModel(Hashable, Protocol):
    """How long an engine takes; pure. ``core.step_time.StepTimeModel`` says it for one regime."""

    def step_s(self, work: StepWork) -> float:
        """Return the time of one step that computes this."""
        ...

    def decode_run_s(self, decodes: int, context_tokens: int, num_steps: int) -> float:
        """Return the time of so many steps of decoding alone.

        Args:
            decodes: Requests that decode in each.
            context_tokens: KV tokens that all of them read in the first; grows by ``decodes``.
            num_steps: How many steps; 0 takes no time.
        """
        ...


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One kind of engine.

    Attributes:
        latency: How long its steps take.
        num_blocks: KV blocks.
        block_tokens: Tokens of one block, the grain of prefix sharing.
        max_step_tokens: Prompt and decode tokens of one step (vLLM's ``max_num_batched_tokens``).
        max_requests: Requests that run at once.
        max_model_len: Longest prompt plus output.
        rules: Its own scheduler.
        caches_prefixes: Whether prompts find prefixes that others have computed.
        repeated_read: What it costs to read KV that another request has read in the same step, as a
            share of what the first reader pays: 1 without caches between memory and cores, less
            with them, 0 for shared-prefix attention.
        capacity_tokens: KV tokens that the coordinator lets run together; None for all blocks.
        latency_capacity_tokens: The same while latency-sensitive work runs; None for no such bound.
        call_overhead_s: What a call takes beside the engine's own time: tokenising, the way to the
            engine and back. It passes before the engine has the call.
        server_call_s: The part of it that keeps the server busy with nothing but this call; calls
            of all engines that are started together take it one after another.
        model: What it serves.
    """

    latency: LatencyModel
    num_blocks: int
    block_tokens: int = 16
    max_step_tokens: int = 8192
    max_requests: int = 256
    max_model_len: int = 131_072
    rules: EngineRules = "parrot"
    caches_prefixes: bool = True
    repeated_read: float = 1.0
    capacity_tokens: int | None = None
    latency_capacity_tokens: int | None = 6144
    call_overhead_s: float = 0.0
    server_call_s: float = 0.0
    model: str = "model"


@dataclass(frozen=True, slots=True)
class Delay:
    """A random time: uniform between two bounds; equal bounds draw nothing.

    Attributes:
        min_s: Shortest.
        max_s: Longest.
    """

    min_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class ClientSpec:
    """How clients reach the server.

    Attributes:
        kind: What they send.
        round_trip: Of one request and its reply; half of it each way.
        overhead_s: What the client's framework and the front end add to each request.
    """

    kind: ClientKind = "graph"
    round_trip: Delay = Delay(0.25, 0.25)
    overhead_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to one engine.

    Attributes:
        time_s: When.
        engine: Position among the engines.
        kind: It is lost with all it runs and holds, joins again, or is slower by a factor from now.
        factor: Of all its step times; for ``slow``. Infinity hangs it, until it is given up.
    """

    time_s: float
    engine: int
    kind: Literal["lost", "joins", "slow"]
    factor: float = 1.0
