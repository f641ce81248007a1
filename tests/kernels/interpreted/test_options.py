"""Softcap, sinks, windows and quantised caches, against float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from parrot_backend.kernels import AttentionError
from parrot_backend.kernels.gpu import ScoreOptions, Variant
from tests.kernels.interpreted.cases import Batch, Case, Member, expected, lay_out, run

MEMBERS = (
    *(Member(("a",), 6 + 5 * i) for i in range(9)),
    Member((), 60, 9),
    Member(("a",), 20, 4),
    Member((), 5),
)
CASE = Case(MEMBERS, {"a": 6}, magnitude=2.0, dtype=torch.float32, num_workers=2)
SINKS = torch.tensor([0.5, -3.0, 20.0, 0.0])


def variant_of(case: Case, *, has_descriptors: bool) -> Variant:
    return Variant(
        num_kv_heads=case.num_kv_heads,
        group_size=case.group_size,
        head_dim=case.head_dim,
        page_size=case.page_size,
        tile_tokens=16,
        has_descriptors=has_descriptors,
    )


def compare(batch: Batch, got: tuple[torch.Tensor, torch.Tensor], **options: Any) -> None:
    want, want_lse = expected(batch, **options)
    # Of values with magnitude 2, and scores as large as 100.
    assert (got[0].double() - want).abs().max() <= 3e-5
    assert (got[1].double() - want_lse).abs().max() <= 1e-3


@pytest.mark.parametrize("has_descriptors", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"softcap": 5.0},
        {"sinks": SINKS},
        {"window": 1},
        {"window": 40},
        {"window": 70},
        {"softcap": 30.0, "sinks": SINKS, "window": 33},
    ],
    ids=lambda options: "+".join(f"{key}" for key in options),
)
def test_what_happens_to_scores(options: dict[str, Any], has_descriptors: bool) -> None:
    variant = variant_of(CASE, has_descriptors=has_descriptors)
    batch = lay_out(CASE, variant)
    compare(batch, run(CASE, batch, variant, ScoreOptions(**options)), **options)


@pytest.mark.parametrize("has_descriptors", [False, True])
def test_quantised_cache(has_descriptors: bool) -> None:
    case = replace(CASE, dtype=torch.float16, kv_dtype=torch.float8_e4m3fn, magnitude=1.0)
    variant = variant_of(case, has_descriptors=has_descriptors)
    batch = lay_out(case, variant)
    scales = (torch.tensor([0.5]), torch.tensor([3.0]))
    options = ScoreOptions(key_scale=scales[0], value_scale=scales[1])
    output, lse = run(case, batch, variant, options)
    batch.key_pages = batch.key_pages.double() * 0.5
    batch.value_pages = batch.value_pages.double() * 3.0
    want, want_lse = expected(batch)
    assert (output.double() - want).abs().max() <= 3 * 2e-3
    assert (lse.double() - want_lse).abs().max() <= 1e-3


def test_separate_caches_with_tokens_before_heads() -> None:
    variant = variant_of(CASE, has_descriptors=True)
    batch = lay_out(CASE, variant)
    for name in ("key_pages", "value_pages"):
        pages = getattr(batch, name)
        setattr(batch, name, pages.transpose(1, 2).contiguous().transpose(1, 2))
    compare(batch, run(CASE, batch, variant))


def test_wrong_arguments_are_named() -> None:
    variant = variant_of(CASE, has_descriptors=False)
    batch = lay_out(CASE, variant)
    for change, message in (
        ({"block_table": batch.block_table.long()}, "int32"),
        ({"value_pages": batch.value_pages[:-1]}, "value_pages"),
        ({"query": batch.query[:, :2]}, "query"),
        ({"scale": 0.0}, "scale"),
    ):
        wrong = replace(batch, **change)
        with pytest.raises(AttentionError, match=message):
            run(CASE, wrong, variant)
    for options, message in (
        (ScoreOptions(softcap=-1.0), "softcap"),
        (ScoreOptions(window=0), "window"),
        (ScoreOptions(sinks=torch.zeros(3)), "sinks"),
        (ScoreOptions(sinks=torch.zeros(8)[::2]), "sinks"),
    ):
        with pytest.raises(AttentionError, match=message):
            run(CASE, batch, variant, options)
    for shape in ((5, 4), (4, 22)):
        with pytest.raises(AttentionError, match="lse"):
            run(CASE, batch, variant, lse=torch.zeros(shape).T)
    with pytest.raises(AttentionError, match="both"):
        run(CASE, batch, variant, ScoreOptions(key_scale=torch.ones(1)))
