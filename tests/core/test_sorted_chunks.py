"""A sorted sequence in chunks behaves like a sorted list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.ids import NodeId
from parrot_backend.core.scheduling import sorted_chunks
from parrot_backend.core.scheduling.sorted_chunks import SortedChunks
from tests.core.hypothesis_settings import examples

Item = tuple[tuple[float, ...], NodeId]


def item(number: int) -> Item:
    return ((float(number),), NodeId(f"r{number}"))


@examples(200)
@given(numbers=st.lists(st.integers(-40, 40), max_size=80), chunk=st.sampled_from([1, 2, 5]))
def test_it_is_a_sorted_list(numbers: list[int], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_chunks, "_CHUNK", chunk)
        real, model = SortedChunks[Item](), list[Item]()
        for number in numbers:
            if item(number) in model:
                model.remove(item(number))
                real.remove(item(number))
            else:
                model = sorted([*model, item(number)])
                real.add(item(number))
            assert list(real) == model
            assert len(real) == len(model)
            assert [real[i] for i in range(len(model))] == model


def test_there_is_nothing_behind_its_end() -> None:
    chunks = SortedChunks[Item]()
    chunks.add(item(1))
    with pytest.raises(IndexError):
        chunks[1]


def test_a_chunk_is_divided_before_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_chunks, "_CHUNK", 4)
    chunks = SortedChunks[Item]()
    for number in range(100):
        chunks.add(item(number))
    assert max(map(len, chunks._chunks)) < 8
