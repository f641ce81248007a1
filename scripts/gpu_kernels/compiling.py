"""Compiles a variant of the attention kernel for a chip that need not be there, and reads the code.

The disassembler is the one in Triton's package.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from parrot_backend.kernels.gpu.attention_kernel import attention_kernel
from parrot_backend.kernels.gpu.merge_kernel import merge_kernel
from parrot_backend.kernels.gpu.variants import Constants, Variant

#: Shared memory that a program may have, in bytes, by compute capability: CUDA C++ Programming
#: Guide, table "Technical Specifications per Compute Capability".
SHARED_LIMIT_BYTES = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024}

#: Instructions that tell how tiles are multiplied and loaded.
INSTRUCTIONS = {
    "HGMMA": "warp-group multiplication (Hopper)",
    "HMMA": "warp multiplication",
    "UTMALDG": "load by TMA descriptor",
    "LDGSTS": "asynchronous load by pointer",
}
_SPILLS = ("LDL", "STL")

_POINTERS = {
    "block_table": "*i32",
    "plan": "*i32",
    "lse": "*fp32",
    "partial_output": "*fp32",
    "partial_lse": "*fp32",
    "sinks": "*fp32",
    "key_scale": "*fp32",
    "value_scale": "*fp32",
}
_STRIDES = re.compile(r"(query|key|value|output)_(page|head|token)")


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the compiler made.

    Attributes:
        registers: Of a thread.
        stack_bytes: Of a thread; 0: nothing spilled.
        shared_bytes: Of a program.
        instructions: How often each of ``INSTRUCTIONS`` stands in the code.
        num_spills: Loads from and stores to the stack.
    """

    registers: int
    stack_bytes: int
    shared_bytes: int
    instructions: dict[str, int]
    num_spills: int


def compile_attention(
    variant: Variant, capability: int, *, dtype: str = "bf16", kv_dtype: str | None = None
) -> Compiled:
    """Compile the attention kernel for a chip (90: compute capability 9.0)."""
    kv_dtype = kv_dtype or dtype
    box = f"[1,1,{variant.tile_tokens},{variant.padded_dim}]"
    pages = f"tensordesc<{kv_dtype}{box}>" if variant.has_descriptors else f"*{kv_dtype}"
    types = {"query": f"*{dtype}", "output": f"*{dtype}", "key": pages, "value": pages}
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    return _compile(attention_kernel, types, variant, capability, options)


def compile_merge(variant: Variant, capability: int, *, dtype: str = "bf16") -> Compiled:
    """Compile the merge kernel for a chip."""
    return _compile(merge_kernel, {"output": f"*{dtype}"}, variant, capability, {"num_warps": 1})


def _compile(
    kernel: Any, types: dict[str, str], variant: Variant, capability: int, options: dict[str, int]
) -> Compiled:
    """Compile for pointers and strides that are multiples of 16, as those of a cache are."""
    names = kernel.arg_names
    known = _POINTERS | types | {"scale": "fp32", "softcap": "fp32", "C": "constexpr"}
    signature = {name: known.get(name, "i32") for name in names}
    aligned = [n for n in names if signature[n].startswith("*") or _STRIDES.fullmatch(n)]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, signature, {(names.index("C"),): Constants(variant)}, attributes)
    # As the launch asks for it: Triton is about to change its default.
    options = options | {"enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return _read(made.asm["cubin"], made.metadata.shared)


def _read(cubin: bytes, shared_bytes: int) -> Compiled:
    """Disassemble a cubin and count."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        usage, code = (
            subprocess.run([tool, flag, file], capture_output=True, text=True, check=True).stdout
            for flag in ("--dump-resource-usage", "--dump-sass")
        )
    return Compiled(
        registers=_number(r"REG:(\d+)", usage),
        stack_bytes=_number(r"STACK:(\d+)", usage),
        shared_bytes=shared_bytes,
        instructions={name: len(re.findall(rf"\b{name}\b", code)) for name in INSTRUCTIONS},
        num_spills=sum(len(re.findall(rf"\b{name}\b", code)) for name in _SPILLS),
    )


def _number(pattern: str, text: str) -> int:
    """Return the number that a pattern finds."""
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"cuobjdump printed no {pattern}")
    return int(found.group(1))
