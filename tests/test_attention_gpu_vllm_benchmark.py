"""The benchmark inside vLLM on a GPU: its engines and batches, and its harness without a GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.attention_gpu.inside import MODELS, MOST_KV_BYTES, WAYS, fitting, shapes
from benchmarks.bench_attention_gpu_vllm import compared, config_of, parser, row_of
from benchmarks.common import Spread


def test_batches_are_of_the_sizes_that_are_captured() -> None:
    captured = parser().parse_args([]).capture
    assert {shape.num_requests for shape in shapes().values()} <= set(captured)
    assert len(shapes()) == 2 * 3 * 3 + 4
    shape = shapes()["4x16@6144"]
    assert shape.num_distinct_tokens == 4 * 6144 + 64 * 128


def test_what_does_not_fit_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    small, large = (list(fitting(MODELS[name], shapes(), 100)) for name in MODELS)
    assert len(small) == len(shapes())
    # A token of the larger model takes 800 KiB: eight texts of 16k tokens are too much.
    assert {shape.name for shape in small} - {shape.name for shape in large} == {
        "8x8@16384",
        "8x2@16384",
    }
    assert "8x8@16384: not run" in capsys.readouterr().out
    assert all(MODELS["llama-2-13b"].kv_bytes(s.num_kv_tokens(100)) <= MOST_KV_BYTES for s in large)


@pytest.mark.parametrize(
    ("way", "backend", "shares", "graphs"),
    [
        ("flash", "FLASH_ATTN", False, True),
        ("triton", "TRITON_ATTN", False, True),
        ("graphs", "CUSTOM", True, True),
        ("pieces", "CUSTOM", True, False),
    ],
)
def test_ways_differ_in_attention_alone(way: str, backend: str, shares: bool, graphs: bool) -> None:
    config = config_of(WAYS[way], 2**30, 64, is_dry=False)
    arguments = config.engine_arguments(is_cpu=False) | dict(WAYS[way].more)
    plugin = arguments.pop("additional_config")["parrot"]
    assert arguments.pop("attention_backend") == backend
    assert (plugin.pop("share_attention"), plugin.pop("attention_graphs")) == (shares, graphs)
    assert not arguments["enforce_eager"]
    usual = config_of(WAYS["graphs"], 2**30, 64, is_dry=False).engine_arguments(is_cpu=False)
    assert arguments.items() <= usual.items()
    assert plugin.items() <= usual["additional_config"]["parrot"].items()


def test_rows_are_compared_with_the_first_way_of_the_same_batch() -> None:
    model, batch = MODELS["llama-3-8b"], shapes()["1x16@2048"]
    row = row_of(model, WAYS["graphs"], batch, 64, Spread(5.0, 4.0, 6.0), 64)
    (known,) = compared([row], {"1x16@2048": 10.0, "1x64@2048": 99.0}, "a GPU", "flash")
    assert (known["gpu"], known["faster"], known["tpot_ms_p20"]) == ("a GPU", 2.0, 4.0)
    # Rows of `--ways graphs` alone are compared with themselves, and must say so.
    assert known["against"] == "flash"
    (unknown,) = compared([row], {}, "a GPU", "flash")
    assert unknown["faster"] is None


@pytest.mark.vllm
@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_dry_run_decodes_and_times_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_attention_gpu_vllm", "--dry-run"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "vllm 2x2@1024: 4 decode, shared nothing",
        "vllm none-3@64: 3 decode, shared nothing",
        "shared 2x2@1024: 4 decode, shared reads",
        "shared none-3@64: 3 decode, shared nothing",
    ):
        assert line in done.stdout
    assert " ms" not in done.stdout
