"""The constants a kernel is compiled for, and how they follow from the chip and the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

#: Rows of the narrow path: the fewest that tensor cores multiply.
NARROW_ROWS = 16
#: Rows of the wide path: the fewest that a warp group multiplies at full rate on Hopper.
WIDE_ROWS = 64
#: Compute capability from which on there are descriptors.
HOPPER = (9, 0)


@dataclass(frozen=True, slots=True)
class Variant:
    """One compiled form of the attention kernel.

    Attributes:
        num_kv_heads: KV heads of the cache.
        group_size: Query heads that read one KV head.
        head_dim: Elements of a head.
        page_size: Tokens of a page.
        wide_rows: Rows (query token, head) of a tile on the wide path.
        narrow_rows: The same on the narrow path; items with no more rows take it.
        tile_tokens: KV positions of a tile.
        num_warps: Warps of a program.
        num_stages: Tiles of keys and values in flight.
        has_descriptors: Tiles are loaded through TMA descriptors, otherwise by pointers.
        has_softcap: Scores are capped by a tanh.
        has_window: Only the last positions are seen.
        has_sinks: Each query head has a sink logit.
        has_lse: The log-sum-exp is stored as well.
        has_scales: Keys and values are quantised, each with one scale.
        upcasts: Multiply in float32. For the interpreter, whose bfloat16 products are wrong.
        precision: How float32 is multiplied: "ieee" or "tf32". Other dtypes do not heed it.
    """

    num_kv_heads: int
    group_size: int
    head_dim: int
    page_size: int
    wide_rows: int = WIDE_ROWS
    narrow_rows: int = NARROW_ROWS
    tile_tokens: int = 64
    num_warps: int = 4
    num_stages: int = 3
    has_descriptors: bool = False
    has_softcap: bool = False
    has_window: bool = False
    has_sinks: bool = False
    has_lse: bool = False
    has_scales: bool = False
    upcasts: bool = False
    precision: str = "ieee"

    @property
    def padded_dim(self) -> int:
        """Elements of a head in a tile: the power of two that holds them."""
        return 1 << (self.head_dim - 1).bit_length()

    @property
    def num_query_heads(self) -> int:
        """Query heads in all."""
        return self.num_kv_heads * self.group_size

    @property
    def max_rows(self) -> int:
        """Query tokens of an item at most: what ``PlanCosts.max_rows`` must not exceed."""
        return self.wide_rows // self.group_size

    @property
    def programs_per_sm(self) -> int:
        """Programs that fit onto a multiprocessor with up to 255 registers a thread."""
        return 8 // self.num_warps


class Constants(str):
    """A variant as the compiler is given it: a text that has the variant's attributes.

    Triton tells hooks what it compiles, as JSON, and vLLM sets such a hook. A dataclass is not fit
    for that, and a named tuple loses its names inside of a kernel. The text says all of the
    variant, so equal texts mean equal code.
    """

    _variant: Variant

    def __new__(cls, variant: Variant) -> Self:
        """Return the constants of a variant."""
        made = super().__new__(cls, repr(variant))
        made._variant = variant
        return made

    def __getattr__(self, name: str) -> object:
        """Return what the variant has."""
        return getattr(self._variant, name)


@lru_cache(maxsize=64)
def constants_of(variant: Variant) -> Constants:
    """Return the constants of a variant; each launch needs them, and a model has few."""
    return Constants(variant)


def choose_variant(
    *,
    num_query_heads: int,
    num_kv_heads: int,
    head_dim: int,
    page_size: int,
    capability: tuple[int, int],
    wide_rows: int = WIDE_ROWS,
) -> Variant:
    """Return the variant for a model's attention on a chip; optional features are all off.

    Each choice keeps what is live at once in registers, by what the compiler reports
    (``scripts/gpu_kernels``). Which is fastest has to be measured on the chip.

    Args:
        num_query_heads: Hq, a multiple of ``num_kv_heads``.
        num_kv_heads: Hkv.
        head_dim: D.
        page_size: Tokens of a KV page.
        capability: The chip's compute capability.
        wide_rows: Rows of a wide tile: 64, or 128 where groups of requests are large.
    """
    is_hopper = capability >= HOPPER
    # A box lies in one page, and tiles of less than 64 positions are weak: so small pages are
    # gathered by pointers, several to a tile.
    has_descriptors = is_hopper and page_size % 64 == 0
    is_large = head_dim > 128
    has_wide_tiles = has_descriptors or (is_hopper and not is_large)
    return Variant(
        num_kv_heads=num_kv_heads,
        group_size=num_query_heads // num_kv_heads,
        head_dim=head_dim,
        page_size=page_size,
        wide_rows=wide_rows,
        tile_tokens=64 if has_wide_tiles else 32,
        num_warps=8 if is_large or wide_rows > WIDE_ROWS else 4,
        has_descriptors=has_descriptors,
    )


def count_workers(variant: Variant, num_multiprocessors: int) -> int:
    """Return how many workers to plan for, so that workers times KV heads fill the chip.

    All programs cost the same, so what counts is how full the last round of them is. The fewest
    workers are taken that come within 5 % of the fullest of the first four rounds.
    """
    places = num_multiprocessors * variant.programs_per_sm
    fullness = {
        workers: workers * variant.num_kv_heads / places
        for workers in range(1, max(1, 4 * places // variant.num_kv_heads) + 1)
    }
    used = {workers: full / -(-full // 1) for workers, full in fullness.items()}
    best = max(used.values())
    return next(workers for workers, share in used.items() if share >= 0.95 * best)
