"""vLLM engines for the tests: the tiny model, a short context, little memory."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

from parrot_backend.core.ids import EngineId
from parrot_backend.engines.vllm import VllmConfig, VllmEngine
from parrot_backend.models import TINY_MODEL_TOOL_PARSER, tiny_model_path

MAX_NUM_SEQS = 8
BLOCK_SIZE = 32

#: Texts of two runs are compared, and shared attention rounds by who runs beside whom: on only
#: in the tests that are about it.
CONFIG = VllmConfig(
    model=str(tiny_model_path()),
    served_model_name="tiny",
    max_model_len=1_024,
    tool_call_parser=TINY_MODEL_TOOL_PARSER,
    compact_json=True,
    max_num_seqs=MAX_NUM_SEQS,
    kv_cache_bytes=64 * 2**20,
    shared_attention=False,
)

#: Two requests at once, and a cache of 127 blocks that a few prompts fill.
SMALL = replace(CONFIG, max_num_seqs=2, kv_cache_bytes=4 * 2**20)


def make_engine(config: VllmConfig = CONFIG, name: str = "vllm") -> VllmEngine:
    return VllmEngine(EngineId(name), config)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def send(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)
