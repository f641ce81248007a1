from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parrot_backend.kernels import PlanCosts
from parrot_backend.kernels.cpu import (
    CpuStep,
    KernelLibrary,
    available_sets,
    load_library,
    pack_pages,
)
from parrot_backend.kernels.cpu.isa import INSTRUCTION_SETS
from tests.kernels.batches import Case, all_costs, cases
from tests.kernels.cpu_cases import check, groups, layouts_of, paged

_DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Leave the other cores to others, but in the test of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[isa.name for isa in INSTRUCTION_SETS])
def library(request: pytest.FixtureRequest) -> KernelLibrary:
    """Return the kernel for each instruction set that this machine has."""
    if request.param not in [isa.name for isa in available_sets()]:
        pytest.skip(f"this machine has no {request.param}")
    return load_library(request.param)


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize(
    ("heads", "dim", "page", "query_lens"),
    [
        ((4, 2), 64, 128, (1,)),
        ((4, 4), 128, 16, (1, 3)),
        ((8, 1), 96, 32, (1,)),
        ((14, 2), 256, 64, (5, 1, 2)),
        ((3, 1), 80, 48, (2,)),
        ((5, 1), 32, 160, (1,)),
        ((2, 2), 32, 32, (33,)),
        ((6, 1), 112, 16, (1, 7)),
        ((16, 2), 16, 64, (4,)),
        ((8, 2), 128, 16, (1, 8, 3)),
    ],
    ids=str,
)
def test_heads_pages_and_types(
    library: KernelLibrary,
    dtype: torch.dtype,
    heads: tuple[int, int],
    dim: int,
    page: int,
    query_lens: tuple[int, ...],
) -> None:
    case = groups([(5, 3), (1, 1), (13, 6)], page, query_lens=query_lens)
    data = paged(case, heads=heads, dim=dim, dtype=dtype)
    expected = data.expected()
    for layout in layouts_of(data, library):
        check(data, data.found(library, layout=layout), expected)


@pytest.mark.parametrize(
    "num_rows", [1, 2, 3, 5, 7, 13, 15, 16, 17, 18, 19, 24, 25, 63, 64, 65, 250]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_number_of_rows(library: KernelLibrary, num_rows: int, dtype: torch.dtype) -> None:
    case = groups([(num_rows, 2)], 32, own=7)
    data = paged(case, heads=(1, 1), dim=64, dtype=dtype)
    plan = data.plan(costs=PlanCosts(row=0.0, item=0.0, partial=0.0, max_rows=num_rows))
    assert plan.items[:, 1].max() == num_rows
    expected = data.expected()
    for layout in layouts_of(data, library):
        check(data, data.found(library, plan=plan, layout=layout), expected)


@pytest.mark.parametrize("length", [1, 15, 17, 32, 33, 127, 129, 257])
@pytest.mark.parametrize("dtype", _DTYPES)
def test_every_end_of_a_sequence(library: KernelLibrary, length: int, dtype: torch.dtype) -> None:
    for page in (16, 64, 256):
        data = paged(groups([(2, 0)], page, own=length), dim=64, dtype=dtype, seed=length)
        expected = data.expected()
        for layout in layouts_of(data, library):
            check(data, data.found(library, layout=layout), expected)


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize(
    "features",
    [
        {"softcap": 3.0},
        {"window": 1},
        {"window": 50},
        {"window": 100_000},
        {"sinks": torch.tensor([-2.0, 0.5, 9.0, -300.0])},
        {"softcap": 1.5, "window": 70, "sinks": torch.tensor([0.0, 1.0, 2.0, 3.0])},
    ],
    ids=lambda features: "+".join(features),
)
def test_features(library: KernelLibrary, dtype: torch.dtype, features: dict[str, Any]) -> None:
    data = paged(groups([(7, 4), (3, 2)], 32, query_lens=(1, 4)), dim=64, dtype=dtype)
    check(data, data.found(library, **features), data.expected(**features))


@pytest.mark.parametrize("dtype", _DTYPES)
def test_big_scores_do_not_overflow(library: KernelLibrary, dtype: torch.dtype) -> None:
    data = paged(groups([(6, 4)], 32), dim=64, dtype=dtype, factor=30.0)
    output, lse = data.found(library)
    expected, expected_lse = data.expected()
    # Scores are near 30 x the usual, so float32 sums of products lose as much more.
    tolerance = {torch.float32: 3e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    assert (output.double() - expected).abs().max() < tolerance
    assert (lse.double() - expected_lse).abs().max() < 1e-3


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    case=cases().filter(lambda case: case.page_size % 16 == 0),
    costs=all_costs(),
    workers=st.integers(1, 5),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1), (8, 1)]),
    dim=st.sampled_from([16, 32, 48, 64]),
    dtype=st.sampled_from(_DTYPES),
    seed=st.integers(0, 1000),
)
def test_any_tree(
    library: KernelLibrary,
    case: Case,
    costs: PlanCosts,
    workers: int,
    heads: tuple[int, int],
    dim: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    data = paged(case, heads=heads, dim=dim, dtype=dtype, seed=seed)
    plan = data.plan(workers=workers, costs=costs)
    expected = data.expected()
    for layout in layouts_of(data, library):
        check(data, data.found(library, plan=plan, layout=layout), expected)


@pytest.mark.parametrize("dtype", _DTYPES)
def test_threads_do_not_change_a_bit(library: KernelLibrary, dtype: torch.dtype) -> None:
    data = paged(groups([(9, 5), (4, 3), (2, 0)], 32, query_lens=(1, 6)), dim=64, dtype=dtype)
    plan = data.plan()
    results = []
    for threads in (1, 2, 2, 4):
        torch.set_num_threads(threads)
        results.append(data.found(library, plan=plan))
    for output, lse in results[1:]:
        assert torch.equal(output, results[0][0])
        assert torch.equal(lse, results[0][1])


@pytest.mark.parametrize("heads", [(1, 1), (6, 3)], ids=str)
@pytest.mark.parametrize("sizes", [[(1, 0)], [(1, 4)], [(3, 9), (1, 1)]], ids=str)
def test_few_units_for_several_threads(
    library: KernelLibrary, sizes: list[tuple[int, int]], heads: tuple[int, int]
) -> None:
    """Fewer units than threads, and a few of which some are taken ahead of need."""
    data = paged(groups(sizes, 32), heads=heads, dim=32)
    expected = data.expected()
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        check(data, data.found(library, plan=data.plan(workers=threads)), expected)


def test_one_plan_serves_layers_with_other_heads(library: KernelLibrary) -> None:
    case = groups([(6, 3), (2, 1)], 32)
    first = paged(case, heads=(4, 2), dim=32)
    second = paged(case, heads=(6, 1), dim=64, dtype=torch.float16, seed=1)
    plan = first.plan()
    step = CpuStep(plan, first.table, case.page_size, library=library)
    for data in (first, second):
        cache = pack_pages(data.keys, data.values)[: data.keys.shape[0]]
        table = torch.empty_like(cache)
        # The pages where the plan's block table looks for them.
        table[first.table.long().flatten()] = cache[data.table.long().flatten()]
        output = step.attend(data.query, table, scale=data.query.shape[2] ** -0.5)
        error = (output.double() - data.expected()[0]).abs().max()
        assert error < (2e-6 if data is first else 2e-3)


def test_strided_inputs_and_outputs(library: KernelLibrary) -> None:
    data = paged(groups([(5, 2)], 32), heads=(4, 2), dim=32)
    cache = pack_pages(data.keys, data.values)
    room = torch.full((len(cache), 4, *cache.shape[2:]), float("nan"))
    room[:, 1:3] = cache
    query = torch.full((len(data.query), 6, 64), float("nan"))
    query[:, 1:5, 16:48] = data.query
    output = torch.full((len(data.query), 9, 32), 7.0)
    table = torch.cat((data.table, data.table), dim=1)[:, : data.table.shape[1]]
    step = CpuStep(data.plan(), table, 32, library=library)
    found = step.attend(query[:, 1:5, 16:48], room[:, 1:3], scale=32**-0.5, output=output[:, 2:6])
    assert (found.double() - data.expected()[0]).abs().max() < 2e-6
    rest = output[:, [0, 1, 6, 7, 8]]
    assert torch.equal(rest, torch.full_like(rest, 7.0))


def test_nothing_to_do(library: KernelLibrary) -> None:
    case = Case(
        np.zeros((2, 3), np.int32), np.array([0, 2, 2], np.int32), np.zeros(2, np.int32), 16
    )
    data = paged(case)
    output, lse = data.found(library)
    assert torch.equal(output, torch.zeros(2, 4, 32))
    assert torch.equal(lse, torch.full((2, 4), -torch.inf))
