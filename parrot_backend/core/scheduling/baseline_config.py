"""Settings of the baseline policies; the values are those their authors publish."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BaselineConfig:
    """Settings of ``cache_aware``, ``kv_exact``, ``session_affinity`` and ``power_of_two``.

    Attributes:
        match_threshold: ``cache_aware``: an engine is preferred for a prompt of which it has had a
            larger share. SGLang's gateway: ``--cache-threshold 0.3``.
        balance_abs: ``cache_aware``: engines are out of balance when the fullest has more than so
            many requests more than the emptiest, and ... Gateway: ``--balance-abs-threshold 64``.
        balance_rel: ... more than so many times its requests. ``--balance-rel-threshold 1.5``.
        max_tree_tokens: ``cache_aware``: prompts remembered for each engine. The gateway's
            ``--max-tree-size 67108864`` is in characters; this is a quarter of it.
        max_tree_entries: The same in boundaries of prompts, to bound the memory; about 200 bytes
            each.
        kv_overlap_weight: ``kv_exact``: what a prompt block to be computed costs, in blocks that
            are in use. Dynamo: ``--router-kv-overlap-score-weight 1``.
        kv_block_tokens: ``kv_exact``: size of a KV block; vLLM's default.
        max_sessions: ``session_affinity``: sessions whose engine is remembered.
        seed: ``power_of_two``: chooses the pairs.
    """

    match_threshold: float = 0.3
    balance_abs: int = 64
    balance_rel: float = 1.5
    max_tree_tokens: int = 2**24
    max_tree_entries: int = 16_384
    kv_overlap_weight: float = 1.0
    kv_block_tokens: int = 16
    max_sessions: int = 65_536
    seed: int = 0
