"""The GPU kernels compile without a GPU, and the code is what the design counts on."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("triton", reason="Triton is not installed on this platform")

from scripts.gpu_kernels.compiling import Compiled, compile_attention, compile_merge
from scripts.gpu_kernels.rows import CORE_ROWS, Row, problems


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path, monkeypatch):
    # What was compiled before must not hide a change of the compiler's environment.
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("row", CORE_ROWS, ids=lambda row: row.name)
def test_attention_kernel(row: Row) -> None:
    made = compile_attention(row.variant, row.capability, dtype=row.dtype, kv_dtype=row.kv_dtype)
    assert problems(row, made) == []


def test_merge_kernel() -> None:
    row = CORE_ROWS[0]
    made = compile_merge(replace(row.variant, has_sinks=True, has_lse=True), row.capability)
    assert made.num_spills == 0
    assert made.registers <= 128


def test_the_gate_sees_what_is_wrong() -> None:
    row = CORE_ROWS[0]
    good = Compiled(200, 0, 80_000, {"HGMMA": 1, "HMMA": 1, "UTMALDG": 1, "LDGSTS": 0}, 0)
    assert problems(row, good) == []
    for change, message in (
        ({"instructions": good.instructions | {"HGMMA": 0}}, "no HGMMA"),
        ({"instructions": good.instructions | {"UTMALDG": 0}}, "no UTMALDG"),
        ({"stack_bytes": 8}, "spills"),
        ({"num_spills": 1}, "spills"),
        ({"shared_bytes": 120_000}, "beside each other"),
        ({"shared_bytes": 240_000}, "shared memory"),
    ):
        (found,) = problems(row, replace(good, **change))
        assert message in found
