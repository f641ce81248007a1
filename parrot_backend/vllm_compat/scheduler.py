"""vLLM's scheduler with hooks: what the plug-in builds on, inside vLLM's core process.

Nothing of vLLM's ``schedule`` is copied. ``SchedulerHooks`` replaces the queue of waiting requests,
chooses before each step which running requests take part and how many tokens they share, and
tells a policy (``seams.Hooks``) what happened. Imports vLLM.

A request without hints goes through vLLM's own queue, and while nothing with hints is around, each
hook returns at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_events import KVEventBatch
from vllm.v1.core import block_pool
from vllm.v1.core.kv_cache_utils import get_block_hash, maybe_convert_block_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import SchedulingPolicy
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreEventType
from vllm.v1.engine.core import EngineCore
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.request import Request, RequestStatus

from parrot_backend.vllm_compat.core_parts import HintQueue, HookedRequest, PoolView, TeePublisher
from parrot_backend.vllm_compat.seams import Hooks
from parrot_backend.vllm_compat.version import check_version

if TYPE_CHECKING:
    _Base = Scheduler
else:
    _Base = object

__all__ = ["AsyncScheduler", "Scheduler", "SchedulerHooks"]

_COMPLETE = (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_LENGTH_CAPPED)


class SchedulerHooks(_Base):
    """Mixin before ``Scheduler`` or ``AsyncScheduler``; a ``seams.CoreSeam`` for its policy."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_version()
        super().__init__(*args, **kwargs)
        _check_base(self)
        self._is_watching = False
        self._made: deque[Any] = deque()
        config = self.vllm_config.additional_config
        self.hooks = self.create_hooks(config.get("parrot") if isinstance(config, dict) else None)
        self._stock_waiting = self.waiting
        self.waiting = HintQueue(self._stock_waiting, self.hooks, _hooked)
        _install_call()

    def create_hooks(self, options: Any) -> Hooks:
        """Return the policy.

        Args:
            options: Entry ``parrot`` of vLLM's ``additional_config``, or None.
        """
        raise NotImplementedError

    # --- what vLLM calls ---------------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        """Take in a request, with its hints if it has some."""
        if request.request_id not in self.requests:  # else it is more input for a known one
            hooked = HookedRequest(request, time.monotonic())
            if self._is_watching:
                # In its other mode, a hit would look like one more block in the cache.
                request.kv_cache_report_mode = "incremental"
            request.parrot = hooked  # type: ignore[attr-defined]
            params = request.sampling_params
            extra_args = None if params is None else params.extra_args
            self.hooks.admit(hooked, extra_args, hooked.arrival_s)
            self.sync_priority(hooked)
            if self.hooks.holds_back(hooked):
                self.requests[request.request_id] = request  # so that it can be aborted
                self.hooks.arrived(hooked)
                return
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Make a step."""
        if self.hooks.is_idle or self.hooks.goes_on():
            return super().schedule(*args, **kwargs)
        begin_s = time.monotonic()
        choice = self.hooks.before_step(begin_s)
        own_tokens, own_active = self.max_num_scheduled_tokens, self.max_num_active_reqs
        held = [hooked.raw for hooked in choice.held]
        self.running = [hooked.raw for hooked in choice.order]
        if choice.max_tokens is not None:
            self.max_num_scheduled_tokens = min(own_tokens, choice.max_tokens)
        self.max_num_active_reqs = own_active - len(held)
        try:
            output = super().schedule(*args, **kwargs)
        finally:
            self.max_num_scheduled_tokens, self.max_num_active_reqs = own_tokens, own_active
            self.running.extend(held)
        find = self.requests
        computed = [(_hooked(find[i]), n) for i, n in output.num_scheduled_tokens.items()]
        begun = [_hooked(find[new.req_id]) for new in output.scheduled_new_reqs]
        self.hooks.step_made(computed, begun, begin_s)
        self._made.append(output)
        return output

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Take in the results of a step."""
        result = super().update_from_output(scheduler_output, *args, **kwargs)
        is_known = bool(self._made) and self._made[0] is scheduler_output
        if is_known:
            self._made.popleft()
        if is_known or not self.hooks.is_idle:
            is_last = not self.has_unfinished_requests()
            self.hooks.step_done(time.monotonic(), is_known=is_known, is_last=is_last)
        return result

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        self.hooks.ended(_hooked(request), is_complete=request.status in _COMPLETE)
        return super()._free_request(request, *args, **kwargs)

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> bool:
        """Forget all cached prefixes, pinned ones too."""
        self.hooks.release_pins()
        is_reset = bool(super().reset_prefix_cache(*args, **kwargs))
        # vLLM tells of it after the next step; but who asks for this has no requests running.
        events = self.kv_cache_manager.take_events() if self._is_watching else []
        if events:
            batch = KVEventBatch(ts=time.time(), events=list[Any](events))
            self.kv_event_publisher.publish(batch)
        self.hooks.flush(time.monotonic())
        return is_reset

    # --- what the policy calls ---------------------------------------------------------------

    @property
    def block_tokens(self) -> int:
        """Tokens of one KV block."""
        return int(self.block_size)

    @property
    def max_step_tokens(self) -> int:
        """Most tokens that one step computes."""
        return int(self.max_num_scheduled_tokens)

    @cached_property
    def pool(self) -> PoolView:
        """The KV blocks."""
        return PoolView(self.kv_cache_manager.block_pool)

    @property
    def watermark_blocks(self) -> int:
        """Free blocks that vLLM leaves when it lets a request begin."""
        return int(self.kv_cache_manager.watermark_blocks)

    @cached_property
    def can_keep_prefixes(self) -> bool:
        """Whether prefixes can be followed and kept: they are cached, with full attention only."""
        groups = self.kv_cache_config.kv_cache_groups
        return (
            bool(self.cache_config.enable_prefix_caching)
            and len(groups) == 1
            and isinstance(groups[0].kv_cache_spec, FullAttentionSpec)
            and groups[0].kv_cache_spec.sliding_window is None
        )

    def running_requests(self) -> list[HookedRequest]:
        """Return the requests that run, in vLLM's order."""
        return [_hooked(request) for request in self.running]

    def num_free_slots(self) -> int:
        """Return how many more requests may run."""
        taken = len(self.running) + self.num_waiting_for_streaming_input
        return int(self.max_num_active_reqs - taken)

    def first_unhinted(self) -> HookedRequest | None:
        """Return the next waiting request without hints, or None."""
        return _hooked(self._stock_waiting.peek_request()) if self._stock_waiting else None

    def nobody_waits(self) -> bool:
        """Tell whether no request waits that could begin."""
        return not (len(self.waiting) or self.kv_holding_waiting)

    def preempt(self, hooked: HookedRequest) -> bool:
        """Put a running request back into the queue; False if that cannot be now."""
        request = hooked.raw
        if not self._request_blocks_can_be_freed(request):
            return False
        self.running.remove(request)
        self._preempt_request(request, time.monotonic())
        return True

    @cached_property
    def can_splice(self) -> bool:
        """Whether outputs can be put into the prompts of other requests."""
        return self.connector is None and not self.num_spec_tokens

    def go_on(self, hooked: HookedRequest, token_ids: list[int], position: int) -> None:
        """Put tokens into the prompt of a request that was kept out of the queue, and queue it."""
        hooked.splice(token_ids, position)
        self._enqueue_waiting_request(hooked.raw)
        if self.log_stats:
            hooked.raw.record_event(EngineCoreEventType.QUEUED)

    def sync_priority(self, hooked: HookedRequest) -> None:
        """Let vLLM's own choice of whom to preempt go by the class, where it goes by priority."""
        if hooked.hints is not None and self.policy is SchedulingPolicy.PRIORITY:
            hooked.raw.priority = int(hooked.request_class)

    def watch_blocks(self) -> Iterator[bytes]:
        """Begin to tell of blocks; yield the hashes of those that are cached already."""
        pool = self.kv_cache_manager.block_pool
        if not self._is_watching:
            self._is_watching = True
            self.kv_cache_manager.take_events()
            pool.enable_kv_cache_events = True
            # Events are to carry whole hashes, under which blocks can be looked up.
            block_pool.maybe_convert_block_hash = _unchanged  # type: ignore[assignment, attr-defined]
            self.kv_event_publisher = TeePublisher(
                self.kv_event_publisher, self.hooks, maybe_convert_block_hash
            )
        for block in pool.blocks:
            if block.block_hash is not None:
                yield get_block_hash(block.block_hash)


def _hooked(request: Request) -> HookedRequest:
    found: HookedRequest = request.parrot  # type: ignore[attr-defined]
    return found


def _unchanged(block_hash: Any) -> Any:
    return block_hash


def _check_base(scheduler: Any) -> None:
    """Check that the class fits the way in which vLLM runs its steps.

    Raises:
        ValueError: With the name of the class to use.
    """
    is_async = bool(scheduler.scheduler_config.async_scheduling)
    if isinstance(scheduler, AsyncScheduler) is not is_async:
        fitting = "ParrotAsyncScheduler" if is_async else "ParrotScheduler"
        raise ValueError(
            f"vLLM runs with async_scheduling={is_async}: use "
            f"--scheduler-cls parrot_backend.vllm_plugin.{fitting}"
        )


def _install_call() -> None:
    """Let the client's side call the policy (``EngineCore`` finds such methods by name)."""
    if not hasattr(EngineCore, "parrot_call"):
        EngineCore.parrot_call = _parrot_call  # type: ignore[attr-defined]


def _parrot_call(core: Any, name: str, arguments: list[Any]) -> Any:
    return core.scheduler.hooks.call(name, arguments, time.monotonic())
