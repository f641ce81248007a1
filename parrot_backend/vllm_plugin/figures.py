"""What the plug-in counts and learns, and which of it the client's side is still to hear."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from parrot_backend.core.step_time import StepTimeFitter
from parrot_backend.vllm_compat.seams import CoreSeam
from parrot_backend.vllm_plugin.attention_board import AttentionBoard
from parrot_backend.vllm_plugin.keeper import PrefixKeeper
from parrot_backend.vllm_plugin.room import RoomMaker

#: The times of steps change with each step; they are told so often.
_INTERVAL_S = 1.0


class Figures:
    """Gathers the figures of a policy's parts for its reports; plain data."""

    def __init__(
        self,
        core: CoreSeam,
        keeper: PrefixKeeper,
        room: RoomMaker,
        fitter: StepTimeFitter,
        attention: AttentionBoard | None,
    ) -> None:
        self._core = core
        self._keeper = keeper
        self._room = room
        self._fitter = fitter
        self._attention = attention
        self._told: dict[str, int] = {}
        self._told_s = 0.0

    def all(self) -> dict[str, Any]:
        """Return what is counted, and how long steps take."""
        model = self._fitter.model
        attention = None if self._attention is None else asdict(self._attention.figures())
        return {
            "step_time": None if model is None else asdict(model),
            "attention": attention,
            **self._counts(),
        }

    def changes(self, now_s: float) -> dict[str, Any]:
        """Return all figures and the prefixes that came or went; empty if nothing is due."""
        is_due = now_s - self._told_s >= _INTERVAL_S
        if not (is_due or self._keeper.has_changes or self._counts() != self._told):
            return {}
        return {**self._keeper.take_changes(), **self._tell(now_s)}

    def snapshot(self, now_s: float) -> dict[str, Any]:
        """Return all figures and all prefixes that are here."""
        return {**self._keeper.snapshot(), **self._tell(now_s)}

    def _tell(self, now_s: float) -> dict[str, Any]:
        self._told, self._told_s = self._counts(), now_s
        return self.all()

    def _counts(self) -> dict[str, int]:
        keeper = self._keeper
        return {
            "pinned_tokens": keeper.num_pinned_blocks * self._core.block_tokens,
            "lost_pins": keeper.lost_pins,
            "hit_tokens": keeper.hit_tokens,
            "pinned_hit_tokens": keeper.pinned_hit_tokens,
            "preempted": self._room.num_preempted,
        }
