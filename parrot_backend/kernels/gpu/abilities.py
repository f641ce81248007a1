"""What the GPU kernel computes; everything else is plain attention's."""

from __future__ import annotations

from dataclasses import replace

import torch

from parrot_backend.kernels.support import KernelAbilities

#: From the first chip with float8 conversions (compute capability 8.9) on. ALiBi, latent and
#: encoder attention are missing from ``KernelAbilities`` because no shared path has them.
ABILITIES = KernelAbilities(
    dtypes=frozenset({torch.bfloat16, torch.float16}),
    kv_dtypes=frozenset({torch.bfloat16, torch.float16, torch.float8_e4m3fn}),
    head_sizes=frozenset({64, 96, 128, 256}),
    page_sizes=frozenset({16, 32, 64, 128}),
    max_head_group=8,
    softcap=True,
    sinks=True,
    window=True,
)


def abilities_of(capability: tuple[int, int]) -> KernelAbilities:
    """Return what the kernel computes on a chip; before compute capability 8.0, nothing."""
    if capability < (8, 0):
        return replace(ABILITIES, dtypes=frozenset())
    if capability < (8, 9):
        return replace(ABILITIES, kv_dtypes=ABILITIES.dtypes)
    return ABILITIES
