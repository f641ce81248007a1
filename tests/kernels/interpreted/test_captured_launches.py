"""Launches are made once, as in a captured graph; then one plan after the other runs by them.

Nothing but the contents of buffers changes between two runs: what the launches were given is
recorded, grids and numbers included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_backend.kernels.gpu import PlanBuffers, PlanLimits, Variant, gpu_attention, launch
from tests.kernels.interpreted.cases import Batch, Case, Member, Recorder, expected, lay_out

WORKERS, REQUESTS, PAGES, WIDTH = 3, 6, 60, 12
VARIANT = Variant(num_kv_heads=1, group_size=2, head_dim=64, page_size=16, tile_tokens=16)
TOLERANCE = 2e-3


@dataclass(frozen=True, slots=True)
class Graph:
    """Buffers at fixed addresses, and the launches that were made with them."""

    buffers: PlanBuffers
    cache: torch.Tensor
    table: torch.Tensor
    query: torch.Tensor
    output: torch.Tensor
    launches: list[Callable[[], Any]]

    def replay(self, batch: Batch) -> torch.Tensor:
        """Put a batch where the launches read it, run them, and return the output."""
        num_tokens, dim = batch.plan.num_tokens, VARIANT.head_dim
        self.cache.fill_(float("nan"))
        self.cache[: len(batch.key_pages), ..., :dim] = batch.key_pages
        self.cache[: len(batch.value_pages), ..., dim:] = batch.value_pages
        self.table.fill_(0)
        rows, width = batch.block_table.shape
        self.table[:rows, :width] = batch.block_table
        # What padding asks for is not to be read.
        self.query.fill_(float("nan"))
        self.query[:num_tokens] = batch.query
        self.output.fill_(float("nan"))
        self.buffers.partial_output.fill_(float("nan"))
        self.buffers.load(batch.plan, len(self.query))
        for run in self.launches:
            run()
        return self.output


@pytest.fixture(scope="module", params=[False, True], ids=["pointers", "descriptors"])
def graph(request: pytest.FixtureRequest) -> Graph:
    """Capture launches for batches of up to ``REQUESTS``, with a plan of none loaded."""
    limits = PlanLimits.for_batches(
        REQUESTS, REQUESTS, num_workers=WORKERS, max_rows=VARIANT.max_rows
    )
    device = torch.device("cpu")
    buffers = PlanBuffers(limits, num_query_heads=2, head_dim=64, device=device)
    cache = torch.zeros(PAGES, 1, 16, 128, dtype=torch.float16)
    table = torch.zeros(REQUESTS, WIDTH, dtype=torch.int32)
    query = torch.zeros(REQUESTS, 2, 64, dtype=torch.float16)
    made = Graph(buffers, cache, table, query, torch.empty_like(query), [])
    buffers.load(lay_out(case(), VARIANT).plan, REQUESTS)
    variant = replace(VARIANT, has_descriptors=request.param)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("attention_kernel", "merge_kernel"):
            patch.setattr(launch, name, Recorder(getattr(launch, name), made.launches))
        gpu_attention(
            *(query, cache[..., :64], cache[..., 64:], table, buffers, variant),
            scale=64**-0.5,
            output=made.output,
        )
    assert len(made.launches) == 2
    return made


def case(*members: Member, padding: int = 0, seed: int = 0, **pages: int) -> Case:
    """Return a batch for the graph's model."""
    return Case(
        members or (Member((), 1),),
        pages,
        num_kv_heads=1,
        num_workers=WORKERS,
        padding_requests=padding,
        seed=seed,
    )


def agree(graph: Graph, batch: Case) -> None:
    laid = lay_out(batch, VARIANT)
    found = graph.replay(laid)
    want, _ = expected(laid)
    num = laid.plan.num_tokens
    assert (found[:num].double() - want).abs().max() <= TOLERANCE
    assert not found[num:].any()


def test_different_batches_replay_the_same_launches(graph: Graph) -> None:
    shared = [Member(("a",), 3 + 7 * index) for index in range(6)]
    alone = [Member((), 5 + 11 * index) for index in range(5)]
    two = [Member(("a",), 4), Member(("b",), 9), Member(("a",), 20), Member(("a", "b"), 2)]
    for batch in (
        case(*shared, a=3),
        case(Member((), 1), padding=5),
        case(*alone, padding=1, seed=1),
        case(*two, a=2, b=3, padding=2, seed=2),
        case(*shared[:2], a=5, seed=3),
        case(*shared, a=3, seed=4),
    ):
        agree(graph, batch)


members = st.builds(Member, st.sampled_from([(), ("a",), ("a", "b"), ("b",)]), st.integers(1, 40))


@given(batches=st.lists(st.lists(members, min_size=1, max_size=REQUESTS), min_size=2, max_size=4))
@settings(max_examples=6, deadline=None, derandomize=True, database=None)
def test_any_batches_in_any_order(graph: Graph, batches: list[list[Member]]) -> None:
    for seed, chosen in enumerate(batches):
        agree(graph, case(*chosen, padding=REQUESTS - len(chosen), seed=seed, a=2, b=1))
