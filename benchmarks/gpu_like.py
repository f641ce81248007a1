"""An engine that pretends to be about a 7B model on one large GPU.

What the scripted engine leaves out, and what decides on a busy GPU, is here: prompts are computed
one after the other, requests beyond the batch wait in order of arrival, and the prefix cache knows
blocks of 16 tokens, however a prompt is cut into parts, and forgets the ones used longest ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from parrot_backend.core.ids import EngineId
from parrot_backend.core.prompt import PromptPart
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.prefix_set import Boundary, PrefixSet
from parrot_backend.engines.scripted import ScriptedConfig, ScriptedEngine, render
from parrot_backend.engines.scripted_reply import Reply

BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class GpuLike:
    """What the engine pretends to be.

    Attributes:
        prefill_s_per_token: Of prompt tokens that are not cached.
        token_s: Of a step, in which every running request gets a token.
        max_requests: Requests in a batch.
        kv_tokens: Size of the KV cache.
        latency_capacity_tokens: See ``EngineInfo``.
    """

    prefill_s_per_token: float = 5e-5
    token_s: float = 0.01
    max_requests: int = 32
    kv_tokens: int = 65_536
    latency_capacity_tokens: int = 6_144


class BlockCache(PrefixSet):
    """A prefix cache of whole blocks, as vLLM's is."""

    def boundaries(
        self, salt: str | None, parts: Iterable[PromptPart], in_front: str = ""
    ) -> tuple[Boundary, ...]:
        """Return the ends of a prompt's blocks, and its own end."""
        words = [*in_front.split(), *render(tuple(parts)).split()]
        key = hash(salt)
        found = []
        for begin in range(0, len(words), BLOCK_TOKENS):
            block = words[begin : begin + BLOCK_TOKENS]
            key = hash((key, *block))
            found.append(Boundary(key, begin + len(block)))
        return tuple(found) or (Boundary(key, 0),)

    def cached_tokens(self, boundaries: tuple[Boundary, ...]) -> int:
        """Return the length of the longest prefix of cached blocks, without the last token."""
        cached = 0
        for boundary in boundaries:
            if boundary.key not in self._seen:
                break
            cached = boundary.num_tokens
        return min(cached, max(0, boundaries[-1].num_tokens - 1))

    def remember(self, boundaries: tuple[Boundary, ...]) -> None:
        """Add a prompt's blocks; of one prompt, the last blocks are forgotten first."""
        super().remember(boundaries[::-1])

    def forget(self) -> None:
        """Begin anew."""
        self._seen.clear()


class GpuLikeEngine(ScriptedEngine):
    """See the module."""

    def __init__(self, engine_id: EngineId, gpu: GpuLike) -> None:
        config = ScriptedConfig(
            token_s=gpu.token_s,
            max_requests=gpu.max_requests,
            capacity_tokens=gpu.kv_tokens,
            latency_capacity_tokens=gpu.latency_capacity_tokens,
            max_model_len=min(100_000, gpu.kv_tokens),
        )
        super().__init__(engine_id, config)
        self._gpu = gpu
        self._blocks = BlockCache(max_prefixes=gpu.kv_tokens // BLOCK_TOKENS)
        self._prefixes = self._blocks
        self._computing = asyncio.Lock()

    async def reset_prefix_cache(self) -> bool:
        """Empty the prefix cache."""
        self._blocks.forget()
        return True

    async def _generate(
        self, request: EngineRequest, reply: Reply, boundaries: tuple[Boundary, ...]
    ) -> tuple[int, float]:
        async with self._computing:
            uncached = boundaries[-1].num_tokens - self._prefixes.cached_tokens(boundaries)
            await asyncio.sleep(uncached * self._gpu.prefill_s_per_token)
        return await super()._generate(request, reply, boundaries)
