from __future__ import annotations

import ctypes
import dataclasses
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parrot_backend.kernels import AttentionError, UnsupportedAttention, WorkPlan
from parrot_backend.kernels.cpu import CpuStep, KvLayout, isa, library, pack_pages
from parrot_backend.kernels.cpu.isa import available_sets, instruction_set, processor_features
from parrot_backend.kernels.work import (
    KV_END,
    KV_START,
    NUM_ROWS,
    ROW_START,
    SLOT_START,
    TABLE_ROW,
)
from tests.kernels.cpu_cases import Paged, groups, paged


@pytest.fixture(scope="module")
def data() -> Paged:
    return paged(groups([(5, 2), (1, 0)], 32))


def changed(plan: WorkPlan, name: str, at: Any, value: int) -> WorkPlan:
    """Return a plan with one number changed."""
    array = getattr(plan, name).copy()
    array[at] = value
    return dataclasses.replace(plan, **{name: array})


def run(data: Paged, plan: WorkPlan, **changes: Any) -> torch.Tensor:
    """Run a step of which some arguments are replaced."""
    cache = changes.pop("kv_cache", None)
    if cache is None:
        cache = pack_pages(data.keys, data.values)
    query = changes.pop("query", data.query)
    step = CpuStep(plan, changes.pop("table", data.table), changes.pop("page_size", 32))
    return step.attend(query, cache, **{"scale": 0.2, **changes})


@pytest.mark.parametrize(
    ("name", "at", "value", "says"),
    [
        ("items", (0, ROW_START), -1, "rows outside"),
        ("items", (0, NUM_ROWS), 0, "rows outside"),
        ("items", (0, NUM_ROWS), 1 << 30, "rows outside"),
        ("items", (0, TABLE_ROW), -1, "no row in the block table"),
        ("items", (0, TABLE_ROW), 6, "no row in the block table"),
        ("items", (0, KV_START), -32, "KV range"),
        ("items", (0, KV_START), 16, "KV range"),
        ("items", (0, KV_END), 0, "KV range"),
        ("items", (0, KV_END), 1 << 30, "KV range"),
        ("items", (0, SLOT_START), -1, "slots outside"),
        ("items", (0, SLOT_START), 1 << 30, "slots outside"),
        ("tokens", 0, -1, "no query token"),
        ("tokens", 0, 6, "no query token"),
        ("slot_ptr", 0, 1, "slots of query token"),
        ("slot_ptr", 1, 1 << 30, "slots of query token"),
        ("slots", 0, -1, "slots of query token"),
        ("slots", 0, 1 << 30, "slots of query token"),
    ],
)
def test_a_plan_that_leaves_its_arrays_is_refused(
    data: Paged, name: str, at: Any, value: int, says: str
) -> None:
    with pytest.raises(AttentionError, match=says):
        run(data, changed(data.plan(), name, at, value))


@pytest.mark.parametrize("page", [-1, 1 << 30])
def test_a_page_that_the_cache_lacks_is_refused(data: Paged, page: int) -> None:
    table = data.table.clone()
    table[:, 0] = page
    plan = data.plan()
    with pytest.raises(AttentionError, match="page that the cache does not have"):
        run(data, plan, table=table)
    with pytest.raises(AttentionError, match="page that the cache does not have"):
        run(data, plan, kv_cache=pack_pages(data.keys, data.values)[:1])


@pytest.mark.parametrize(
    "change",
    [
        lambda data: {"scale": 0.0},
        lambda data: {"scale": float("nan")},
        lambda data: {"softcap": -1.0},
        lambda data: {"window": 0},
        lambda data: {"query": data.query[:-1]},
        lambda data: {"query": data.query[0]},
        lambda data: {"query": torch.cat((data.query, data.query[:, :1]), 1)},
        lambda data: {"query": data.query.transpose(1, 2).contiguous().transpose(1, 2)},
        lambda data: {"query": data.query.half()},
        lambda data: {"query": data.query.to("meta")},
        lambda data: {"output": torch.empty(1)},
        lambda data: {"output": torch.empty_like(data.query, dtype=torch.float16)},
        lambda data: {"lse": torch.empty(6, 3)},
        lambda data: {"lse": torch.empty(4, 6).T},
        lambda data: {"lse": torch.empty(6, 4, dtype=torch.float64)},
        lambda data: {"sinks": torch.zeros(3)},
        lambda data: {"table": data.table.long()},
        lambda data: {"table": data.table.T.contiguous().T},
        lambda data: {"table": data.table[0]},
        lambda data: {"page_size": 64},
        lambda data: {"kv_cache": data.keys},
        lambda data: {"kv_cache": pack_pages(data.keys, data.values).transpose(2, 3)},
        lambda data: {"kv_cache": pack_pages(data.keys, data.values).half()},
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    data: Paged, change: Callable[[Paged], dict[str, Any]]
) -> None:
    with pytest.raises(AttentionError):
        run(data, data.plan(), **change(data))


@pytest.mark.parametrize(
    "change",
    [
        {"items": np.zeros((2, 7), np.int32)},
        {"positions": np.zeros(3, np.int32)},
        {"slot_ptr": np.zeros(3, np.int32)},
        {"slots": np.zeros(3, np.int32)},
        {"tokens": np.zeros(6, np.int64)},
        {"tokens": np.zeros(12, np.int32)[::2]},
    ],
)
def test_a_plan_of_the_wrong_shape_is_refused(data: Paged, change: dict[str, Any]) -> None:
    with pytest.raises(AttentionError, match=r"plan\."):
        CpuStep(dataclasses.replace(data.plan(), **change), data.table, 32)


@pytest.mark.parametrize(
    ("dim", "page", "dtype", "layout"),
    [
        (24, 32, torch.float32, KvLayout.ROWS),
        (32, 24, torch.float32, KvLayout.ROWS),
        (48, 32, torch.bfloat16, KvLayout.PAIRS),
        (32, 48, torch.bfloat16, KvLayout.PAIRS),
        (32, 32, torch.float16, KvLayout.PAIRS),
        (32, 32, torch.float64, KvLayout.ROWS),
    ],
)
def test_pages_that_it_cannot_read_are_unsupported(
    dim: int, page: int, dtype: torch.dtype, layout: KvLayout
) -> None:
    data = paged(groups([(2, 1)], page, own=5), dim=dim, dtype=dtype)
    cache = torch.zeros(*data.keys.shape[:3], 2 * dim, dtype=dtype)
    with pytest.raises(UnsupportedAttention):
        run(data, data.plan(), kv_cache=cache, page_size=page, layout=layout)


def test_instruction_sets_follow_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_sets()[-1].name == "plain"
    assert set(processor_features()) >= instruction_set().features
    monkeypatch.setattr(isa, "processor_features", lambda: frozenset({"avx2", "fma", "f16c"}))
    assert instruction_set().name == "avx2"
    with pytest.raises(AttentionError, match="no instruction set 'avx512', only: avx2, plain"):
        instruction_set("avx512")
    monkeypatch.setattr(isa, "processor_features", frozenset)
    assert instruction_set().name == "plain"


def test_without_a_compiler_it_warns_once_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "absent"))
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))
    library.load_library.cache_clear()
    library.why_unavailable.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert "no C++ compiler was found" in (library.why_unavailable() or "")
        assert not library.is_available()
    assert len(caplog.records) == 1
    monkeypatch.undo()
    library.why_unavailable.cache_clear()
    assert library.is_available()


def test_the_import_compiles_and_loads_nothing(tmp_path: Path) -> None:
    code = "import parrot_backend.kernels.cpu, ctypes, sys; sys.exit(0)"
    environment = {"PARROT_CACHE_DIR": str(tmp_path), "CXX": "/absent", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_threads_are_those_of_torch() -> None:
    assert torch.backends.openmp.is_available()
    assert library.find_parallel()


def test_the_runtime_is_found_in_a_folder_with_spaces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As it must be where the loader tells nobody of torch's runtime but who asks by its path."""
    known = library.find_parallel()
    home = tmp_path / "my home" / "libgomp.so.1"
    maps = f"7f80-7f81 r-xp 00000000 fe:00 53  {home}\n7f82-7f83 rw-p 00000000 00:00 0 \n"
    asked: list[str | None] = []
    open_library = ctypes.CDLL

    def load(path: str | None) -> Any:
        asked.append(path)
        if path != str(home):
            raise OSError(path)
        return open_library(None)

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(Path, "read_text", lambda self: maps)
    try:
        library.find_parallel.cache_clear()
        assert library.find_parallel() == known
    finally:
        library.find_parallel.cache_clear()
    assert asked == [None, str(home)]
