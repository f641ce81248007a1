"""Attention of a step on the CPU: checks what it is given, then calls the compiled kernel."""

from __future__ import annotations

import ctypes
import math
import threading

import numpy as np
import torch

from parrot_backend.kernels.cpu.layout import KvLayout, check_layout
from parrot_backend.kernels.cpu.library import (
    CallFields,
    KernelLibrary,
    find_parallel,
    load_library,
)
from parrot_backend.kernels.errors import AttentionError, UnsupportedAttention
from parrot_backend.kernels.prefixes import Int32Array
from parrot_backend.kernels.work import KV_END, KV_START, NUM_ROWS, WorkPlan

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_LAYOUTS = {KvLayout.ROWS: 0, KvLayout.PAIRS: 1}


class _Partials(threading.local):
    """Room for partial results, kept from step to step: new memory costs a fault per page."""

    def __init__(self) -> None:
        self._room = torch.empty(0)

    def of(self, count: int) -> torch.Tensor:
        if len(self._room) < count:
            self._room = torch.empty(count + count // 4)
        return self._room


_partials = _Partials()


class CpuStep:
    """A step's plan, checked once and run for each layer."""

    def __init__(
        self,
        plan: WorkPlan,
        block_table: torch.Tensor | Int32Array,
        page_size: int,
        *,
        library: KernelLibrary | None = None,
    ) -> None:
        """Take a plan. It and the block table must stay as they are until the step is over.

        Args:
            plan: Of the step.
            block_table: [B, P] int32, page ids of each request.
            page_size: Tokens of a page.
            library: Of an instruction set; by default the fastest.

        Raises:
            AttentionError: An array has another type or shape than the plan needs.
            CompilerUnavailable: The kernel is not compiled yet and cannot be.
        """
        self._library = library or load_library()
        self._plan = plan
        table = block_table if isinstance(block_table, np.ndarray) else _host_array(block_table)
        if table.ndim != 2 or table.dtype != np.int32 or (table.size and table.strides[1] != 4):
            raise AttentionError("block_table must be [B, P], int32, with adjacent columns")
        for name in ("items", "tokens", "positions", "slot_ptr", "slots"):
            array = getattr(plan, name)
            if array.dtype != np.int32 or not array.flags.c_contiguous:
                raise AttentionError(f"plan.{name} must be int32 and contiguous")
        if plan.items.shape != (plan.num_items, 8) or len(plan.slots) != plan.num_slots:
            raise AttentionError("plan.items must be [N, 8], plan.slots [num_slots]")
        if len(plan.slot_ptr) != plan.num_tokens + 1 or len(plan.positions) != plan.num_tokens:
            raise AttentionError("plan.slot_ptr must be [T + 1], plan.positions [T]")
        self._table = table
        self._order = _costly_first(plan)
        self._call = self._fields(page_size)
        self._checked_pages = -1

    def _fields(self, page_size: int) -> CallFields:
        plan, table = self._plan, self._table
        return CallFields(
            num_items=plan.num_items,
            num_rows=len(plan.tokens),
            num_tokens=plan.num_tokens,
            num_requests=len(table),
            num_slots=plan.num_slots,
            page_size=page_size,
            table_stride=table.strides[0] // 4 if table.size else 0,
            table_width=table.shape[1],
            items=plan.items.ctypes.data,
            order=self._order.ctypes.data,
            tokens=plan.tokens.ctypes.data,
            positions=plan.positions.ctypes.data,
            slot_ptr=plan.slot_ptr.ctypes.data,
            slots=plan.slots.ctypes.data,
            block_table=table.ctypes.data,
            parallel=find_parallel(),
        )

    def attend(
        self,
        query: torch.Tensor,
        kv_cache: torch.Tensor,
        *,
        scale: float,
        output: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
        softcap: float = 0.0,
        window: int | None = None,
        sinks: torch.Tensor | None = None,
        layout: KvLayout = KvLayout.ROWS,
    ) -> torch.Tensor:
        """Compute attention of one layer.

        Args:
            query: [T, Hq, D] float32, bfloat16 or float16, elements of a head adjacent.
            kv_cache: [num_pages, Hkv, page_size, 2 * D] of the same type, in ``layout``.
            scale: Positive factor of the scores.
            output: [T, Hq, D] of the same type, to write into; made if None.
            lse: [T, Hq] float32, gets the natural log-sum-exp (sinks included) if given.
            softcap: Bound of the scores; 0: none.
            window: How many positions a query token sees, its own included; None: all.
            sinks: [Hq] A score per head that takes part in the softmax and has no value.
            layout: Of the cache.

        Returns:
            The output. Query tokens that the plan gives no work get 0 (and -inf, or the sink).

        Raises:
            AttentionError: Something does not fit; nothing was read or written.
            UnsupportedAttention: The kernel does not compute this.
        """
        output = torch.empty_like(query) if output is None else output
        call = self._call
        self._set_tensors(query, kv_cache, output, layout)
        self._set_numbers(scale, softcap, window)
        heads = query.shape[1]
        room = _partials.of(self._plan.num_slots * heads * (query.shape[2] + 1))
        call.part_output = room.data_ptr()
        call.part_lse = room.data_ptr() + 4 * self._plan.num_slots * heads * query.shape[2]
        if lse is not None:
            _check_tensor("lse", lse, query.shape[:2], torch.float32)
            if not lse.is_contiguous():
                raise AttentionError("lse must be contiguous")
        call.lse = None if lse is None else lse.data_ptr()
        if sinks is not None:
            _check_tensor("sinks", sinks, (heads,), sinks.dtype)
            sinks = sinks.float().contiguous()
        call.sinks = None if sinks is None else sinks.data_ptr()
        self._check_plan(kv_cache.shape[0])
        self._library.attend(ctypes.byref(call))
        return output

    def _set_tensors(
        self, query: torch.Tensor, kv_cache: torch.Tensor, output: torch.Tensor, layout: KvLayout
    ) -> None:
        if query.ndim != 3 or kv_cache.ndim != 4:
            raise AttentionError("query must be [T, Hq, D], kv_cache [num_pages, Hkv, page, 2 D]")
        call = self._call
        tokens, heads, dim = query.shape
        kv_heads = kv_cache.shape[1]
        if query.dtype not in _DTYPES:
            raise UnsupportedAttention(f"no attention of {query.dtype}")
        check_layout(layout, query.dtype, dim, call.page_size)
        if layout is KvLayout.PAIRS and not self._library.isa.multiplies_bf16:
            raise UnsupportedAttention(f"{self._library.isa.name} cannot read layout {layout}")
        if tokens != self._plan.num_tokens or kv_heads < 1 or heads % kv_heads:
            raise AttentionError(
                f"query is {[*query.shape]}; the plan has {self._plan.num_tokens} query tokens, "
                f"the cache {kv_heads} KV heads"
            )
        _check_tensor("query", query, query.shape, query.dtype)
        _check_tensor("output", output, query.shape, query.dtype)
        shape = (kv_cache.shape[0], kv_heads, call.page_size, 2 * dim)
        _check_tensor("kv_cache", kv_cache, shape, query.dtype)
        if query.stride(2) != 1 or output.stride(2) != 1:
            raise AttentionError("the elements of a head must be adjacent in query and output")
        if kv_cache.stride(3) != 1 or kv_cache.stride(2) != 2 * dim:
            raise AttentionError("each page and KV head of kv_cache must be contiguous")
        call.num_heads, call.num_kv_heads, call.head_dim = heads, kv_heads, dim
        call.num_pages = kv_cache.shape[0]
        call.query_token_stride, call.query_head_stride = query.stride(0), query.stride(1)
        call.output_token_stride, call.output_head_stride = output.stride(0), output.stride(1)
        call.page_stride, call.head_stride = kv_cache.stride(0), kv_cache.stride(1)
        call.dtype, call.layout = _DTYPES[query.dtype], _LAYOUTS[layout]
        call.query, call.pages = query.data_ptr(), kv_cache.data_ptr()
        call.output = output.data_ptr()

    def _set_numbers(self, scale: float, softcap: float, window: int | None) -> None:
        if not (0 < scale < math.inf and 0 <= softcap < math.inf):
            raise AttentionError(f"scale {scale} must be positive, softcap {softcap} at least 0")
        if window is not None and window < 1:
            raise AttentionError(f"window must be at least 1, not {window}")
        call = self._call
        call.scale, call.softcap, call.window = scale, softcap, window or 0
        call.num_threads = torch.get_num_threads()

    def _check_plan(self, num_pages: int) -> None:
        """Check the plan and the block table once for each size of cache."""
        if num_pages == self._checked_pages:
            return
        fault = self._library.fault(self._call)
        if fault:
            raise AttentionError(fault)
        self._checked_pages = num_pages


def cpu_attention(
    query: torch.Tensor,
    kv_cache: torch.Tensor,
    block_table: torch.Tensor | Int32Array,
    plan: WorkPlan,
    *,
    scale: float,
    output: torch.Tensor | None = None,
    softcap: float = 0.0,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
    layout: KvLayout = KvLayout.ROWS,
    library: KernelLibrary | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute one layer's attention: a :class:`CpuStep` of one layer.

    Returns:
        Output [T, Hq, D] and natural log-sum-exp [T, Hq] float32.

    Raises:
        AttentionError: As :class:`CpuStep` and :meth:`CpuStep.attend`, which tell the arguments.
    """
    if kv_cache.ndim != 4:
        raise AttentionError(f"kv_cache must be [num_pages, Hkv, page, 2 D], not {kv_cache.ndim}-d")
    step = CpuStep(plan, block_table, kv_cache.shape[2], library=library)
    lse = torch.empty(query.shape[:2])
    found = step.attend(
        query,
        kv_cache,
        scale=scale,
        output=output,
        lse=lse,
        softcap=softcap,
        window=window,
        sinks=sinks,
        layout=layout,
    )
    return found, lse


def _host_array(table: torch.Tensor) -> Int32Array:
    if table.device.type != "cpu" or table.dtype != torch.int32:
        raise AttentionError(f"block_table must be int32 on the CPU, not {table.dtype}")
    array: Int32Array = table.numpy()
    return array


def _costly_first(plan: WorkPlan) -> Int32Array:
    """Return [N] items, the costliest first: threads take them one by one, and end together."""
    tokens = (plan.items[:, KV_END] - plan.items[:, KV_START]).astype(np.int64)
    # Reading a token costs about as much as the arithmetic of eight rows.
    cost = tokens * (plan.items[:, NUM_ROWS] + 8)
    order: Int32Array = np.argsort(-cost, kind="stable").astype(np.int32)
    return order


def _check_tensor(
    name: str, tensor: torch.Tensor, shape: tuple[int, ...] | torch.Size, dtype: torch.dtype
) -> None:
    if tensor.shape != tuple(shape) or tensor.dtype != dtype or tensor.device.type != "cpu":
        raise AttentionError(
            f"{name} must be {[*shape]} {dtype} on the CPU, "
            f"not {[*tensor.shape]} {tensor.dtype} on {tensor.device.type}"
        )
