"""The GPU benchmark's shapes, and its harness without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton", reason="Triton is not installed on this platform")

from benchmarks.attention_gpu.shapes import PAT_TREES, Shape, Tree, block_table, shapes


def test_published_trees_are_whole() -> None:
    assert len(PAT_TREES) == 20
    for tree in PAT_TREES:
        assert all(b % a == 0 for a, b in zip(tree.nodes, tree.nodes[1:], strict=False))
        table = block_table(tree, 32)
        assert table.shape == (tree.batch, tree.seq_len // 32)
        assert len(np.unique(table)) * 32 == tree.unique_tokens


def test_a_table_shares_what_the_tree_says() -> None:
    table = block_table(Tree((1, 2, 4), (32, 16, 16)), 16)
    assert (table[:, :2] == table[0, :2]).all()
    assert [len(np.unique(table[:, column])) for column in range(4)] == [1, 1, 2, 4]
    assert table[0, 2] == table[1, 2] != table[2, 2]


def test_the_bound_is_bytes_or_multiplications() -> None:
    shape = Shape(Tree((1, 64), (6144, 128)), 32, 8, 128, 64)
    # 4096 bytes a token, 6144 + 64 * 128 of them, and 64 rows of queries and outputs.
    assert shape.bound_us(4.3e12, 790e12) == pytest.approx(13.9, abs=0.1)
    large = Shape(Tree((1, 256), (65536, 128)), 32, 8, 128, 64)
    assert large.bound_us(4.3e12, 790e12) == pytest.approx(4 * 32 * 128 * 256 * 65664 / 790e6)


def test_all_shapes_can_be_laid_out() -> None:
    found = list(shapes())
    assert len(found) > 150
    assert len(set(found)) == len(found)
    for shape in found:
        assert all(tokens % shape.page_size == 0 for tokens in shape.tree.tokens)


def test_the_dry_run_checks_and_times_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_attention_gpu", "--dry-run"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wrong outputs: 0" in done.stdout
    assert done.stdout.count(": shared, shared, 128 rows, unshared, sdpa agree") == 3
    assert "not compared: flashinfer cascade: needs a GPU" in done.stdout
    assert " us" not in done.stdout
