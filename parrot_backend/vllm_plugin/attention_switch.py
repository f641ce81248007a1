"""Whether the steps of a KV cache group are shared, on whatever device, and what is counted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from parrot_backend.kernels.errors import AttentionError
from parrot_backend.kernels.support import LayerAttention
from parrot_backend.vllm_compat import attention as compat
from parrot_backend.vllm_compat.host_tables import HostTables
from parrot_backend.vllm_compat.step_batch import StepBatch
from parrot_backend.vllm_plugin.attention_board import AttentionBoard, board_of
from parrot_backend.vllm_plugin.attention_step import SharedStep, StepSharing

logger = logging.getLogger(__name__)

#: Says why a layer cannot share reads; None if it can.
WhyPlain = Callable[[LayerAttention], str | None]


def open_board(vllm_config: Any) -> AttentionBoard | None:
    """Return an engine's board; None if nobody asked for Parrot there, or it cannot be had."""
    if compat.plugin_options(vllm_config) is None:
        return None
    try:
        return board_of(compat.engine_key(vllm_config))
    except OSError as exc:
        logger.warning("attention does not share reads: %s", exc)
        return None


class AttentionSwitch:
    """Decides for each step of one KV cache group.

    Args:
        vllm_config: vLLM's configuration.
        spec: vLLM's description of the group's cache.
        layer_names: Its layers.
        why_plain: What speaks against a layer.
        create: Makes the planner; called if nothing does.
        tables: Where block tables of devices may be found on the host.

    With the option ``share_attention`` off nothing is looked at, compiled or made until somebody
    switches it on.
    """

    def __init__(
        self,
        vllm_config: Any,
        spec: Any,
        layer_names: Iterable[str],
        why_plain: WhyPlain,
        create: Callable[[], StepSharing],
        *,
        tables: HostTables | None = None,
    ) -> None:
        self._tables = tables
        self._knows_lengths = compat.knows_lengths(vllm_config)
        self._board = open_board(vllm_config)
        self._sharing: StepSharing | None = None
        self._for_graphs: StepSharing | None = None
        self._counts = compat.counts_steps(vllm_config)
        self._is_begun = False
        self._create, self._why_plain = create, why_plain
        self._group = (vllm_config, tuple(layer_names), spec)
        if self._board is None:
            return
        if compat.shares_attention(vllm_config):
            self._begin(self._board)
        else:
            self._board.is_on = False

    def _begin(self, board: AttentionBoard) -> None:
        self._is_begun = True
        vllm_config, names, spec = self._group
        layers = compat.layers_of(vllm_config, names, spec.block_size)
        reason = _reason(spec, layers, self._why_plain)
        board.attach(reason)
        if reason is None:
            self._sharing = self._for_graphs = self._create()
        else:
            logger.warning("attention does not share reads: %s", reason)

    @property
    def can_compute(self) -> bool:
        """Whether our kernel can compute the group's layers, and was asked to."""
        return self._for_graphs is not None

    def step(self, common: Any, *, may_share: bool = True) -> SharedStep | None:
        """Plan a step; None if vLLM's own kernel is to compute all of it.

        Args:
            common: vLLM's ``CommonAttentionMetadata``.
            may_share: False if vLLM's own kernel computes it in any case.
        """
        board = self._board
        if board is None:
            return None
        shared = None
        is_on = board.is_on
        if is_on and not self._is_begun:
            self._begin(board)
        if is_on and may_share and self._sharing is not None:
            shared = self._planned(self._sharing, common, board)
        self._count(board, common, shared)
        return shared

    def whole_step(self, common: Any) -> SharedStep:
        """Plan a step of a captured graph: all of it, whether its requests share anything or not.

        Args:
            common: vLLM's ``CommonAttentionMetadata``.

        Raises:
            AttentionError: It cannot be planned. The graph has no other way.
        """
        board, planner = self._board, self._for_graphs
        assert board is not None, "only such groups are captured"
        assert planner is not None, "only such groups are captured"
        batch = self._batch(common)
        if batch is None:
            raise AttentionError("a captured graph was to compute attention that is not causal")
        may_share = board.is_on and self._sharing is not None
        shared = planner.plan_whole(batch, may_share=may_share)
        self._count(board, common, shared)
        return shared

    def _batch(self, common: Any) -> StepBatch | None:
        return compat.batch_of(common, knows_lengths=self._knows_lengths, tables=self._tables)

    def _count(self, board: AttentionBoard, common: Any, shared: SharedStep | None) -> None:
        if self._counts:
            kv_tokens = compat.kv_tokens_of(common)
            saved = 0 if shared is None else shared.kv_tokens_saved
            board.count(kv_tokens, kv_tokens - saved, is_shared=saved > 0)

    def _planned(
        self, sharing: StepSharing, common: Any, board: AttentionBoard
    ) -> SharedStep | None:
        """Plan a step; a batch that cannot be planned ends sharing, and not the engine."""
        batch = self._batch(common)
        try:
            return None if batch is None else sharing.plan(batch)
        except AttentionError as exc:
            logger.error("attention shares no reads any more: %s: %s", exc.code, exc)
            self._sharing = None
            board.give_up(exc.code)
            return None


def _reason(spec: Any, layers: Iterable[LayerAttention], why_plain: WhyPlain) -> str | None:
    if not compat.is_plain_cache(spec):
        return f"a KV cache of kind {type(spec).__name__}"
    return next(filter(None, map(why_plain, layers)), None)
