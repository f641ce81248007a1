"""Baseline policy ``kv_exact``: least prefill to do plus KV in use, as Dynamo's KV router.

Source: the cost of NVIDIA Dynamo's KV router at temperature 0
(https://docs.nvidia.com/dynamo/, components/router: routing concepts, configuration and tuning):
``cost = overlap weight * prefill blocks + decode blocks``, both in KV blocks; the engine of the
lowest cost. llm-d's scorer of exact prefixes weighs the same two against each other, as shares.

Prefill blocks are those of the prompt that the engine does not hold: exact where engines report
their cache, else by what was placed there (as with the router's KV events switched off). Decode
blocks are those of the prompts that would run there, this one included, each counted once; the
router leaves out outputs, too, unless told otherwise. What is still to be prefilled of requests
placed before is not added: nothing is heard of that from a request whose text nobody reads
meanwhile. Engines without room are left out. Among equals, order of joining; the router draws.

Wrong choice where requests matter differently, or in groups: each is placed for itself.
"""

from __future__ import annotations

from collections import Counter

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixBoundary, PrefixChain
from parrot_backend.core.scheduling.baseline_config import BaselineConfig
from parrot_backend.core.scheduling.baselines import has_room
from parrot_backend.core.scheduling.memory import PlacementMemory
from parrot_backend.core.scheduling.placement import ClusterView, Placement

#: A boundary as it lies in one prompt: its hash, and its distance from the one before.
_Piece = tuple[bytes, int]


class ActivePrompts(PlacementMemory):
    """The prompts that run on each engine; what they have in common is there once."""

    def __init__(self) -> None:
        self._pieces: dict[AttemptId, list[_Piece]] = {}
        # How many prompts have a piece, and its length when the first of them came: a later one may
        # estimate it otherwise.
        self._uses: dict[EngineId, dict[bytes, tuple[int, int]]] = {}
        self._tokens: Counter[EngineId] = Counter()
        self._attempts: dict[EngineId, dict[AttemptId, None]] = {}

    def tokens(self, engine: EngineId) -> int:
        """Return how long all distinct prompts on an engine are."""
        return self._tokens[engine]

    def overlap_tokens(self, engine: EngineId, chain: PrefixChain) -> int:
        """Return how much of a prompt runs on an engine in others."""
        uses = self._uses.get(engine)
        if uses:
            for boundary in reversed(chain):
                if boundary.hash in uses:
                    return boundary.tokens
        return 0

    def placed(self, request: Request, attempt: AttemptId, engine: EngineState) -> None:
        """Take in that a prompt runs on an engine."""
        pieces = _pieces(request.prefixes)
        self._pieces[attempt] = pieces
        self._attempts.setdefault(engine.id, {})[attempt] = None
        uses = self._uses.setdefault(engine.id, {})
        for key, tokens in pieces:
            count, counted = uses.get(key, (0, tokens))
            if not count:
                self._tokens[engine.id] += tokens
            uses[key] = (count + 1, counted)

    def ended(self, attempt: AttemptId, engine: EngineId) -> None:
        """Take in that an attempt runs no more."""
        uses = self._uses[engine]
        del self._attempts[engine][attempt]
        for key, _ in self._pieces.pop(attempt):
            count, counted = uses[key]
            if count > 1:
                uses[key] = (count - 1, counted)
            else:
                del uses[key]
                self._tokens[engine] -= counted

    def lost(self, engine: EngineId) -> None:
        """Forget an engine and all that ran there."""
        for attempt in self._attempts.pop(engine, ()):
            del self._pieces[attempt]
        self._uses.pop(engine, None)
        del self._tokens[engine]


class KvExactPlacement:
    """The engine with room of the lowest cost in blocks."""

    def __init__(self, config: BaselineConfig, active: ActivePrompts) -> None:
        self._weight = config.kv_overlap_weight
        self._block_tokens = config.kv_block_tokens
        self._active = active

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place one request where it costs least."""
        best: EngineState | None = None
        best_blocks, best_cost = (0, 0), 0.0
        for engine in view.candidates([request]):
            if not has_room(request, engine, view):
                continue
            prefill, decode = self._blocks(request, engine, view)
            cost = self._weight * prefill + decode
            if best is None or cost < best_cost:
                best, best_blocks, best_cost = engine, (prefill, decode), cost
        if best is None:
            return []
        reason = f"least cost: {best_blocks[0]} blocks to prefill, {best_blocks[1]} in use then"
        return [Placement(request, best.id, reason)]

    def _blocks(self, request: Request, engine: EngineState, view: ClusterView) -> tuple[int, int]:
        """Return how many blocks the engine would have to prefill, and how many it would use."""
        size, prompt = self._block_tokens, request.prompt_tokens
        resident = view.prefixes.resident_tokens(engine.id, request.sharing)
        # A block is shared as a whole or not at all.
        prefill = max(0, -(-prompt // size) - resident // size)
        overlap = self._active.overlap_tokens(engine.id, request.prefixes)
        in_use = self._active.tokens(engine.id) + max(0, prompt - overlap)
        return prefill, -(-in_use // size)


def _pieces(chain: PrefixChain) -> list[_Piece]:
    before = (PrefixBoundary(b"", 0), *chain)
    return [(b.hash, b.tokens - a.tokens) for a, b in zip(before, chain, strict=False)]
