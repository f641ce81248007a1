"""What can be set of the plug-in: entry ``parrot`` of vLLM's ``additional_config``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from parrot_backend.core.pacing import PacingOptions
from parrot_backend.core.waiting import WaitingOptions
from parrot_backend.vllm_plugin.pins import PinOptions


@dataclass(frozen=True, slots=True)
class PluginOptions:
    """Parts that can be switched off, and their numbers.

    Attributes:
        order: Serve waiting requests by their hints; else in order of arrival.
        gang: Serve the members of a task group together.
        pace: Keep the steps of latency-sensitive requests short: for targets, and of bulk work.
        preempt: Preempt throughput work when a latency-sensitive request finds no room.
        pin: Keep the KV blocks that requests to come will read.
        splice: Put outputs into prompts that wait for them (hint ``after``). Only for engines
            whose requests all come from somebody to be trusted, as Parrot's server.
        share_attention: Read the KV that several requests begin with once per step, for all of them
            (docs/kernels.md).
        attention_graphs: On GPUs, let vLLM capture our attention in CUDA graphs of decode steps.
        max_wait_s: A request that waited longer goes before all others.
        slowdown: Without a target of its own, a latency-sensitive request's step may take this many
            times what it would take without bulk work.
        max_hold_s: A running request that was held for longer takes part in the next step.
        spare_share: Prompts may be computed ahead of need beside latency-sensitive requests as far
            as that lengthens their step by this share.
        max_pinned_share: Most of the KV blocks that may be pinned, in [0, 1].
        pin_ttl_s: A pin that nobody used or renewed for so long is given back.
    """

    order: bool = True
    gang: bool = True
    pace: bool = True
    preempt: bool = True
    pin: bool = True
    splice: bool = False
    share_attention: bool = True
    attention_graphs: bool = True
    max_wait_s: float = 30.0
    slowdown: float = 2.0
    max_hold_s: float = 2.0
    spare_share: float = 0.1
    max_pinned_share: float = 0.5
    pin_ttl_s: float = 60.0

    def waiting(self) -> WaitingOptions:
        """Return the part for the queue."""
        return WaitingOptions(max_wait_s=self.max_wait_s)

    def pacing(self) -> PacingOptions:
        """Return the part for pacing."""
        return PacingOptions(
            slowdown=self.slowdown, max_hold_s=self.max_hold_s, spare_share=self.spare_share
        )

    def pins(self) -> PinOptions:
        """Return the part for pins."""
        return PinOptions(max_share=self.max_pinned_share, ttl_s=self.pin_ttl_s)


def read_options(raw: object) -> PluginOptions:
    """Return the options from plain data; what is missing keeps its default.

    Raises:
        ValueError: With the name that is unknown, or whose value cannot be used.
    """
    if raw is None:
        return PluginOptions()
    if not isinstance(raw, Mapping):
        raise ValueError(f"additional_config['parrot'] must be a mapping, not {raw!r}")
    defaults = {field.name: field.default for field in fields(PluginOptions)}
    values: dict[str, bool | float] = {}
    for name, value in raw.items():
        if name not in defaults:
            raise ValueError(f"Parrot's plug-in has no option {name!r}; it has {list(defaults)}")
        values[name] = _checked(name, value, is_switch=isinstance(defaults[name], bool))
    return PluginOptions(**values)  # type: ignore[arg-type]


def _checked(name: str, value: object, *, is_switch: bool) -> bool | float:
    if is_switch:
        if isinstance(value, bool):
            return value
        raise ValueError(f"option {name!r} must be true or false, not {value!r}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"option {name!r} must be a number of at least 0, not {value!r}")
    if name == "max_pinned_share" and value > 1:
        raise ValueError(f"option {name!r} must be at most 1, not {value!r}")
    return float(value)
