"""The variants that the compile gate compiles, and what it asks of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from parrot_backend.kernels.gpu.variants import Variant, choose_variant
from scripts.gpu_kernels.compiling import SHARED_LIMIT_BYTES, Compiled

MOST_REGISTERS = 255


@dataclass(frozen=True, slots=True)
class Row:
    """A variant on a chip.

    Attributes:
        capability: 90 is compute capability 9.0.
        variant: As ``choose_variant`` chooses it, with the features of the row.
        dtype: Of queries, in Triton's words.
        kv_dtype: Of the cache.
        features: What the row has beyond plain attention, for people.
    """

    capability: int
    variant: Variant
    dtype: str = "bf16"
    kv_dtype: str = "bf16"
    features: str = ""

    @property
    def name(self) -> str:
        """Short and unique."""
        variant = self.variant
        words = (
            f"sm_{self.capability}",
            f"{self.dtype}/{self.kv_dtype}" if self.dtype != self.kv_dtype else self.dtype,
            f"D{variant.head_dim} G{variant.group_size} page{variant.page_size}",
            f"rows{variant.wide_rows}",
            self.features,
        )
        return " ".join(word for word in words if word)


def row(
    capability: int,
    head_dim: int = 128,
    page_size: int = 64,
    group_size: int = 4,
    *,
    wide_rows: int = 64,
    dtype: str = "bf16",
    kv_dtype: str | None = None,
    features: str = "",
) -> Row:
    """Return the row of a model on a chip."""
    variant = choose_variant(
        num_query_heads=8 * group_size,
        num_kv_heads=8,
        head_dim=head_dim,
        page_size=page_size,
        capability=divmod(capability, 10),
        wide_rows=wide_rows,
    )
    if features:
        words = features.split("+")
        variant = replace(
            variant,
            has_softcap="softcap" in words,
            has_window="window" in words,
            has_sinks="sinks" in words,
            has_lse="lse" in words,
            has_scales="scales" in words,
        )
    return Row(capability, variant, dtype, kv_dtype or dtype, features)


#: Compiled by every run of the tests: each path once, and those nearest to the limits.
CORE_ROWS = (
    row(90),
    row(90, page_size=16),
    row(90, wide_rows=128),
    row(90, head_dim=256),
    row(90, group_size=7, features="softcap+window+sinks+lse"),
    row(90, kv_dtype="fp8e4nv", features="scales"),
    row(80, page_size=16),
    row(89, page_size=16, kv_dtype="fp8e4nv", features="scales"),
)

#: The whole table of ``docs/gpu_kernel.md``.
ALL_ROWS = (
    *CORE_ROWS,
    row(90, dtype="fp16"),
    row(90, head_dim=64),
    row(90, head_dim=96),
    row(90, group_size=1),
    row(90, group_size=8),
    row(90, page_size=32, wide_rows=128),
    row(90, page_size=128),
    row(90, head_dim=256, page_size=16),
    row(90, head_dim=96, page_size=16),
    row(90, head_dim=64, page_size=16),
    row(90, page_size=16, kv_dtype="fp8e4nv", features="scales"),
    row(90, page_size=16, group_size=7, features="softcap+window+sinks+lse"),
    row(90, head_dim=256, kv_dtype="fp8e4nv", features="scales"),
    row(80, head_dim=256, page_size=16),
    row(80, head_dim=64, page_size=16),
    row(80, head_dim=96, page_size=16),
    row(80, page_size=64),
    row(86, page_size=16),
    row(86, head_dim=256, page_size=16),
    row(89, page_size=16, wide_rows=128),
    row(89, head_dim=256, page_size=16),
    row(89, page_size=16, group_size=7, features="softcap+window+sinks+lse"),
)


def problems(checked: Row, made: Compiled) -> list[str]:
    """Return what is wrong with compiled code: no tensor cores, no TMA, spills, too much memory."""
    is_hopper = checked.capability >= 90
    count = made.instructions
    wanted = {
        "HGMMA": is_hopper,
        "HMMA": True,
        "UTMALDG": checked.variant.has_descriptors,
        "LDGSTS": not checked.variant.has_descriptors,
    }
    found = [f"no {name}" for name, is_wanted in wanted.items() if is_wanted and not count[name]]
    if made.stack_bytes or made.num_spills:
        found.append(f"spills: {made.stack_bytes} bytes of stack, {made.num_spills} accesses")
    if made.registers > MOST_REGISTERS:
        found.append(f"{made.registers} registers")
    programs = checked.variant.programs_per_sm
    limit = SHARED_LIMIT_BYTES[checked.capability]
    if made.shared_bytes > limit:
        found.append(f"{made.shared_bytes} bytes of shared memory of {limit}")
    elif is_hopper and programs * (made.shared_bytes + 1024) > limit + 1024:
        found.append(f"{programs} programs do not fit beside each other")
    return found
