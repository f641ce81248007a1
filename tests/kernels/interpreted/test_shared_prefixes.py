"""The GPU kernel against float64 on trees of prefixes, by pointers and by descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_backend.kernels.gpu import Variant
from parrot_backend.kernels.work import CAUSAL, DIRECT, FLAGS, NUM_ROWS
from tests.kernels.interpreted.cases import Case, Member, expected, lay_out, run

TOLERANCE = {torch.float16: 2e-3, torch.float32: 2e-6, torch.bfloat16: 1.6e-2}


def agree(case: Case, *, tile_tokens: int = 32, has_descriptors: bool = False) -> None:
    """Compare the kernel with the reference; padding must be empty."""
    variant = Variant(
        num_kv_heads=case.num_kv_heads,
        group_size=case.group_size,
        head_dim=case.head_dim,
        page_size=case.page_size,
        tile_tokens=tile_tokens,
        has_descriptors=has_descriptors,
    )
    batch = lay_out(case, variant)
    output, lse = run(case, batch, variant)
    want, want_lse = expected(batch)
    num = batch.plan.num_tokens
    # Values grow with the magnitude, and errors of scores with its square.
    tolerance = TOLERANCE[case.dtype] * case.magnitude**3
    assert (output[:num].double() - want).abs().max() <= tolerance
    assert (lse[:num].double() - want_lse).abs().max() <= 1e-3
    assert not output[num:].any()
    assert torch.isneginf(lse[num:]).all()


def alike(count: int, *groups: str, own_tokens: int = 7, query_len: int = 1) -> tuple[Member, ...]:
    """Return members that begin alike and have tails of different length."""
    return tuple(Member(groups, own_tokens + 5 * i, query_len) for i in range(count))


def trees() -> Iterator[tuple[str, Case]]:
    """Yield the awkward batches."""
    yield "alone", Case(alike(3))
    yield "one token", Case((Member((), 1),))
    yield (
        "depth 5",
        Case(
            tuple(Member(tuple("abcde"[: 1 + i // 2]), 3 + i) for i in range(10)),
            dict.fromkeys("abcde", 2),
        ),
    )
    yield (
        "groups and a loner",
        Case(
            (*alike(5, "a"), *alike(2, "b"), Member((), 40), *alike(3, "b", "c")),
            {"a": 5, "b": 3, "c": 2},
        ),
    )
    yield "page ends", Case(tuple(Member(("a",), n) for n in (1, 15, 16, 17, 32)), {"a": 3})
    yield "twice the same pages", Case(alike(4, "a", "b", "a"), {"a": 2, "b": 1})
    yield "padding", Case(alike(3, "a"), {"a": 4}, padding_requests=2, padding_tokens=3)
    yield "large scores", Case(alike(4, "a"), {"a": 4}, magnitude=5.0, dtype=torch.float32)
    yield "bfloat16", Case(alike(4, "a"), {"a": 4}, dtype=torch.bfloat16)
    yield "more workers than work", Case(alike(2, "a"), {"a": 1}, num_workers=16)


CASES = dict(trees())


@pytest.mark.parametrize("name", CASES)
def test_trees_by_pointers(name: str) -> None:
    agree(CASES[name])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].dtype == torch.float16])
def test_trees_by_descriptors(name: str) -> None:
    agree(CASES[name], tile_tokens=16, has_descriptors=True)


@pytest.mark.parametrize("has_descriptors", [False, True])
@pytest.mark.parametrize("group_size", [1, 4])
@pytest.mark.parametrize("query_len", [2, 8])
def test_several_query_tokens(query_len: int, group_size: int, has_descriptors: bool) -> None:
    members = (*alike(3, "a", own_tokens=9, query_len=query_len), Member((), 50, 37))
    case = Case(members, {"a": 4}, group_size=group_size)
    agree(case, tile_tokens=16, has_descriptors=has_descriptors)


@pytest.mark.parametrize("num_members", [15, 16, 17, 31, 33])
def test_rows_around_the_tiles(num_members: int) -> None:
    # Four heads a group: 60, 64, 68, 124 and 132 rows of shared work, against tiles of 64 and 16.
    case = Case(alike(num_members, "a", own_tokens=1), {"a": 2}, num_kv_heads=1, group_size=4)
    agree(case)


@pytest.mark.parametrize(
    ("num_members", "has_descriptors"),
    [(15, True), (16, False), (16, True), (17, False), (63, True), (64, False), (65, True)],
)
def test_one_head_a_group_fills_tiles_by_one_row(num_members: int, has_descriptors: bool) -> None:
    members = alike(num_members, "a", own_tokens=1)
    case = Case(tuple(replace(m, own_tokens=1 + i % 3) for i, m in enumerate(members)), {"a": 2})
    case = replace(case, num_kv_heads=1, group_size=1)
    agree(case, tile_tokens=16, has_descriptors=has_descriptors)


@pytest.mark.parametrize(
    ("page_size", "tile_tokens", "has_descriptors"),
    [(16, 64, False), (32, 64, False), (64, 64, False), (32, 32, True), (64, 64, True)],
)
def test_pages_and_tiles(page_size: int, tile_tokens: int, has_descriptors: bool) -> None:
    case = Case(alike(5, "a", own_tokens=30), {"a": 3}, page_size=page_size, num_kv_heads=1)
    agree(case, tile_tokens=tile_tokens, has_descriptors=has_descriptors)


@pytest.mark.parametrize("has_descriptors", [False, True])
@pytest.mark.parametrize(
    ("head_dim", "group_size"), [(64, 8), (96, 7), (96, 1), (128, 4), (256, 1)]
)
def test_heads(head_dim: int, group_size: int, has_descriptors: bool) -> None:
    case = Case(
        (*alike(4, "a"), Member(("a",), 20, 3)), {"a": 2}, head_dim=head_dim, group_size=group_size
    )
    agree(case, tile_tokens=16, has_descriptors=has_descriptors)


def test_cases_take_every_path() -> None:
    # Wide and narrow, causal and not, finished at once and merged: else the tests above prove less.
    variant = Variant(num_kv_heads=2, group_size=2, head_dim=64, page_size=16)
    members = (*alike(9, "a"), Member((), 50, 37))
    items = lay_out(Case(members, {"a": 4}), variant).plan.items
    rows = items[:, NUM_ROWS] * variant.group_size
    flags = items[:, FLAGS]
    paths = {
        (r > variant.narrow_rows, bool(f & CAUSAL), bool(f & DIRECT))
        for r, f in zip(rows.tolist(), flags.tolist(), strict=True)
    }
    assert {wide for wide, _, _ in paths} == {True, False}
    assert {causal for _, causal, _ in paths} == {True, False}
    alone = lay_out(Case((Member((), 50, 37),), num_workers=1), variant).plan.items
    assert (alone[:, FLAGS] & DIRECT).all()


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw requests that begin with some of a few groups of pages."""
    pages = {group: draw(st.integers(1, 3)) for group in "ab"}
    members = draw(
        st.lists(
            st.builds(
                lambda groups, own, query: Member(groups, max(own, query), query),
                st.sampled_from([(), ("a",), ("a", "b"), ("b",), ("b", "a")]),
                st.integers(1, 40),
                st.sampled_from([1, 1, 1, 2, 5]),
            ),
            min_size=1,
            max_size=6,
        )
    )
    return Case(
        tuple(members),
        pages,
        num_kv_heads=1,
        group_size=draw(st.sampled_from([1, 4])),
        num_workers=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 99)),
    )


@given(case=cases(), has_descriptors=st.booleans())
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
def test_any_batch(case: Case, has_descriptors: bool) -> None:
    agree(case, tile_tokens=16, has_descriptors=has_descriptors)
