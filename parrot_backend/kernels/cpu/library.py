"""The compiled kernel, and the record that it is called with.

Pointers go through ctypes: the library is bound to no version of torch's C++ interface, and needs
seconds to compile where torch's headers alone take half a minute.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import ClassVar

from parrot_backend.kernels.compiling import Unit, compile_library, open_library
from parrot_backend.kernels.cpu.isa import InstructionSet, instruction_set
from parrot_backend.kernels.errors import CompilerUnavailable

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("source")
#: Never `-ffast-math`: masks are infinities.
FLAGS = ("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")

_COUNTS = [
    "num_items",
    "num_rows",
    "num_tokens",
    "num_requests",
    "num_slots",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "page_size",
    "num_pages",
    "table_stride",
    "table_width",
    "query_token_stride",
    "query_head_stride",
    "output_token_stride",
    "output_head_stride",
    "page_stride",
    "head_stride",
    "dtype",
    "layout",
    "window",
    "num_threads",
]
_POINTERS = [
    "items",
    "order",
    "tokens",
    "positions",
    "slot_ptr",
    "slots",
    "block_table",
    "query",
    "pages",
    "output",
    "lse",
    "part_output",
    "part_lse",
    "sinks",
    "parallel",
]


class CallFields(ctypes.Structure):
    """`Call` of ``source/call.h``, field by field."""

    _fields_: ClassVar = [
        *((name, ctypes.c_int64) for name in _COUNTS),
        ("scale", ctypes.c_double),
        ("softcap", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    ]


#: What `parrot_check` found, in the order of `Fault` in ``source/attention.cpp``; {} is where.
FAULTS = (
    "",
    "item {} has rows outside of the packed tokens",
    "packed row {} is no query token",
    "item {} has no row in the block table",
    "item {} has a KV range that is empty, does not begin at a page or leaves the block table",
    "item {} reads a page that the cache does not have",
    "item {} has slots outside of the plan's",
    "the slots of query token or entry {} are outside of the plan's",
)


class KernelLibrary:
    """The loaded library of one instruction set.

    Attributes:
        isa: What it is compiled for.
    """

    def __init__(self, isa: InstructionSet) -> None:
        """Compile the library if nobody did before, and load it.

        Raises:
            CompilerUnavailable: It is not compiled yet and cannot be.
        """
        self.isa = isa
        unit = Unit(SOURCE / "attention.cpp", (*FLAGS, *isa.flags))
        headers = sorted(SOURCE.glob("*.h"))
        path = compile_library(f"attention_{isa.name}", [unit], headers=headers)
        library = open_library(path)
        library.parrot_call_bytes.restype = ctypes.c_int64
        size = library.parrot_call_bytes()
        assert size == ctypes.sizeof(CallFields), "call.h and CallFields differ"
        self._check = library.parrot_check
        self._check.restype = ctypes.c_int64
        self.attend = library.parrot_attend
        self.attend.restype = None

    def fault(self, call: CallFields) -> str | None:
        """Return what is wrong with a plan and its block table; reads nothing else."""
        where = ctypes.c_int64()
        fault = self._check(ctypes.byref(call), ctypes.byref(where))
        return FAULTS[fault].format(where.value) if fault else None


@cache
def load_library(name: str | None = None) -> KernelLibrary:
    """Return the library of an instruction set, or of the fastest that the machine has.

    Raises:
        AttentionError: The machine lacks it.
        CompilerUnavailable: It is not compiled yet and cannot be.
    """
    return KernelLibrary(instruction_set(name))


@cache
def why_unavailable() -> str | None:
    """Return why the kernel cannot run here, after one warning; None if it can.

    Compiles it on the first call on a machine.
    """
    try:
        load_library()
    except CompilerUnavailable as error:
        logger.warning("shared-prefix attention is off, plain attention is used: %s", error)
        return str(error)
    return None


def is_available() -> bool:
    """Return whether the kernel can run here; :func:`why_unavailable` tells why not."""
    return why_unavailable() is None


@cache
def find_parallel() -> int:
    """Return the address of ``GOMP_parallel`` of the OpenMP runtime in this process; 0 without one.

    It must be the runtime that torch uses: its threads are those that torch's and vLLM's settings
    count and bind to cores. LLVM's and Intel's runtimes offer the same entry point.
    """
    candidates: list[str | None] = [None]
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        maps = ""
    # The sixth field is the path, which may have spaces.
    lines = (line.split(maxsplit=5) for line in maps.splitlines() if "omp" in line)
    paths = {fields[5] for fields in lines if len(fields) == 6}
    candidates += sorted(
        p for p in paths if Path(p).name.startswith(("libgomp", "libiomp", "libomp"))
    )
    for path in candidates:
        try:
            function = ctypes.CDLL(path).GOMP_parallel
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0
