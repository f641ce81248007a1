from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.sim import texts as texts_module
from parrot_backend.sim.texts import ConstantTexts, output_text, text_of
from tests.core.hypothesis_settings import examples


@examples(200)
@given(st.text(max_size=20), st.integers(1, 300))
def test_a_text_is_as_long_as_asked_and_can_be_hashed(key: str, tokens: int) -> None:
    text = text_of(key, tokens)
    assert len(text) == tokens
    assert text == text_of(key, tokens)
    text.encode()


@pytest.mark.parametrize("tokens", [3, 7, 15, 16, 17, 100])
def test_different_keys_have_different_texts(tokens: int) -> None:
    texts = {text_of(str(key), tokens) for key in range(5_000)}
    assert len(texts) == 5_000


def test_outputs_differ_by_job_and_call_and_from_constants() -> None:
    texts = [output_text(1, "a", 50), output_text(2, "a", 50), output_text(1, "b", 50)]
    texts.append(ConstantTexts().segment("output 1 a", 50).text)
    assert len(set(texts)) == 4


def test_constants_are_made_once_and_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "_MAX_BYTES", 5_000)
    texts = ConstantTexts()
    first = texts.segment("key", 400)
    assert texts.segment("key", 400) is first
    assert texts.segment("key", 401) != first
    for number in range(100):
        texts.segment(str(number), 300)
    assert texts.segment("key", 400) is not first
    assert texts.segment("key", 400) == first
    assert sum(len(t.text) for t in texts._segments.values()) <= 5_000
