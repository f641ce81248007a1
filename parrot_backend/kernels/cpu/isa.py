"""Which instruction sets the kernel is compiled for, and which of them this machine has.

The library is compiled on the machine that runs it, for one instruction set only. So there is no
second copy of an inline function compiled for a set that the machine lacks, which the linker might
prefer.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from parrot_backend.kernels.errors import AttentionError

_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")


@dataclass(frozen=True, slots=True)
class InstructionSet:
    """One way to compile the kernel.

    Attributes:
        name: Stable name.
        flags: Of the compiler.
        features: What the processor must have, in the words of ``/proc/cpuinfo``.
        multiplies_bf16: Whether bfloat16 is multiplied as such, not converted first.
    """

    name: str
    flags: tuple[str, ...]
    features: frozenset[str]
    multiplies_bf16: bool = False


_AVX2_FEATURES = frozenset({"avx2", "fma", "f16c"})
_AVX512_FEATURES = _AVX2_FEATURES | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}

#: The fastest first. The last one needs nothing.
INSTRUCTION_SETS = (
    InstructionSet(
        "avx512_bf16",
        (*_AVX512, "-mavx512bf16"),
        _AVX512_FEATURES | {"avx512_bf16"},
        multiplies_bf16=True,
    ),
    InstructionSet("avx512", _AVX512, _AVX512_FEATURES),
    InstructionSet("avx2", _AVX2, _AVX2_FEATURES),
    InstructionSet("plain", (), frozenset()),
)


@cache
def processor_features() -> frozenset[str]:
    """Return what the processor and the system offer; nothing where that is not known."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset(next((v.split() for k, _, v in lines if k.strip() == "flags"), []))


def available_sets() -> tuple[InstructionSet, ...]:
    """Return the instruction sets that this machine has, the fastest first."""
    features = processor_features()
    return tuple(isa for isa in INSTRUCTION_SETS if isa.features <= features)


def wins_inside_vllm() -> bool:
    """Tell whether engines were measured to be faster with this kernel, on processors like this.

    That is where bfloat16 is multiplied as such, but not by a matrix unit (AMX), which vLLM's own
    kernel uses. Elsewhere nothing was measured inside vLLM (docs/kernels.md).
    """
    return available_sets()[0].multiplies_bf16 and "amx_tile" not in processor_features()


def instruction_set(name: str | None = None) -> InstructionSet:
    """Return an instruction set of this machine: the fastest, or the one of a name.

    Raises:
        AttentionError: There is none of this name, or the machine lacks it.
    """
    sets = available_sets()
    found = sets[0] if name is None else next((isa for isa in sets if isa.name == name), None)
    if found is None:
        names = ", ".join(isa.name for isa in sets)
        raise AttentionError(f"this machine has no instruction set {name!r}, only: {names}")
    return found
