"""Baseline policy ``cache_aware``: to the engine that has had most of a prompt, as SGLang routes.

Source: the policy ``cache_aware`` of SGLang's gateway as its documentation describes it
(https://github.com/sgl-project/sglang, sgl-model-gateway/README.md, and
https://github.com/lightseekorg/smg, docs/configuration/routing.md). While the engines are out of
balance, absolutely and relatively, the one with the fewest requests. Else the one that has been
sent the longest beginning of this prompt, if that is more than a share of it; else the one whose
tree of prompts is the smallest, so that prompts spread.

The trees are made of what was sent and never of what the engines hold. The gateway's are of
characters; here they are of the boundaries of prompts (segments, and beginnings that discovery
found), which is as fine as the core knows prompts. They are trimmed as they grow, the gateway's
every two minutes. Engines without room are left out: the gateway lets their queues grow. Among
equals, fewest requests, then order of joining; the gateway does not say.

Wrong choice where all prompts begin alike: then one beginning draws all calls to one engine until
the balance is gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixChain
from parrot_backend.core.scheduling.baseline_config import BaselineConfig
from parrot_backend.core.scheduling.baselines import has_room, least_loaded
from parrot_backend.core.scheduling.memory import PlacementMemory
from parrot_backend.core.scheduling.placement import ClusterView, Placement


class PromptTrees(PlacementMemory):
    """For each engine an approximate tree of the prompts it was sent.

    A boundary's hash covers all before it, so a tree is a set of hashes. The parents of a boundary
    are always used after it, and so what was used longest ago is a leaf.

    Args:
        max_tokens: Size of one tree; its oldest leaves are forgotten beyond this.
        max_entries: The same in boundaries.
    """

    def __init__(self, max_tokens: int, max_entries: int) -> None:
        self._max_tokens, self._max_entries = max_tokens, max_entries
        self._trees: dict[EngineId, OrderedDict[bytes, int]] = {}
        self._sizes: dict[EngineId, int] = {}
        self._engines_of: dict[bytes, dict[EngineId, None]] = {}

    def tokens(self, engine: EngineId) -> int:
        """Return the size of an engine's tree."""
        return self._sizes.get(engine, 0)

    def num_entries(self, engine: EngineId) -> int:
        """Return how many boundaries an engine's tree has."""
        return len(self._trees.get(engine, ()))

    def longest_match(
        self, chain: PrefixChain, engines: Sequence[EngineState]
    ) -> tuple[list[EngineState], int]:
        """Return those engines that were sent the longest beginning of a prompt, and its tokens."""
        for boundary in reversed(chain):
            sent_to: Collection[EngineId] = self._engines_of.get(boundary.hash, ())
            matching = [engine for engine in engines if engine.id in sent_to] if sent_to else []
            if matching:
                return matching, boundary.tokens
        return [], 0

    def placed(self, request: Request, attempt: AttemptId, engine: EngineState) -> None:
        """Put a prompt into an engine's tree."""
        tree = self._trees.setdefault(engine.id, OrderedDict())
        chain = request.sharing
        before = [0, *(boundary.tokens for boundary in chain)]
        for boundary, start in zip(reversed(chain), reversed(before[:-1]), strict=True):
            if boundary.hash in tree:
                tree.move_to_end(boundary.hash)
                continue
            tree[boundary.hash] = boundary.tokens - start
            self._sizes[engine.id] = self.tokens(engine.id) + boundary.tokens - start
            self._engines_of.setdefault(boundary.hash, {})[engine.id] = None
        self._trim(engine.id)

    def lost(self, engine: EngineId) -> None:
        """Forget the tree of an engine."""
        for key in self._trees.pop(engine, ()):
            self._drop(key, engine)
        self._sizes.pop(engine, None)

    def _trim(self, engine: EngineId) -> None:
        tree = self._trees[engine]
        while len(tree) > self._max_entries or self.tokens(engine) > self._max_tokens:
            oldest, tokens = tree.popitem(last=False)
            self._sizes[engine] -= tokens
            self._drop(oldest, engine)

    def _drop(self, key: bytes, engine: EngineId) -> None:
        engines = self._engines_of[key]
        del engines[engine]
        if not engines:
            del self._engines_of[key]


class CacheAwarePlacement:
    """Longest match above a threshold while balanced; else the shortest queue."""

    def __init__(self, config: BaselineConfig, trees: PromptTrees) -> None:
        self._config = config
        self._trees = trees

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place one request as the module says."""
        engines = [e for e in view.candidates([request]) if has_room(request, e, view)]
        if not engines:
            return []
        if self._is_out_of_balance(request, view):
            best = least_loaded(engines)
            return [Placement(request, best.id, "shortest queue: engines are out of balance")]
        chain = request.sharing
        matching, tokens = self._trees.longest_match(chain, engines)
        if matching and tokens > self._config.match_threshold * chain[-1].tokens:
            reason = f"was sent {tokens} of about {chain[-1].tokens} tokens of the prompt before"
            return [Placement(request, least_loaded(matching).id, reason)]
        fewest = min(self._trees.tokens(engine.id) for engine in engines)
        smallest = [engine for engine in engines if self._trees.tokens(engine.id) == fewest]
        reason = f"smallest tree of prompts of {len(engines)} engines"
        return [Placement(request, least_loaded(smallest).id, reason)]

    def _is_out_of_balance(self, request: Request, view: ClusterView) -> bool:
        loads = [len(e.running) for e in view.engines if e.serves(request.model)]
        most, fewest = max(loads), min(loads)
        is_apart = most - fewest > self._config.balance_abs
        return is_apart and most > self._config.balance_rel * fewest
