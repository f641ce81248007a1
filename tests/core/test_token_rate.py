"""The learnt number of tokens per character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.token_rate import TokenRate
from tests.core.hypothesis_settings import examples


def learn(*reports: tuple[int, int], first_estimate: float = 0.25) -> float:
    rate = TokenRate(first_estimate)
    for chars, tokens in reports:
        rate.learn(chars, tokens)
    return rate.value


@pytest.mark.parametrize(
    ("chars", "tokens", "expected"),
    [
        (1000, 250, 0.25),  # as expected
        (1000, 500, 0.275),  # a tenth of the way
        (1000, 150, 0.24),
        (256, 128, 0.275),  # just long enough
        (255, 128, 0.25),  # too short to tell
        (0, 10, 0.25),
        (1000, 0, 0.25),  # not counted
        (1000, 10**9, 0.325),  # not believed: 1
        (10**9, 1, 0.23),  # not believed: 0.05
    ],
)
def test_one_report_moves_the_estimate(chars: int, tokens: int, expected: float) -> None:
    assert learn((chars, tokens)) == pytest.approx(expected)


def test_estimate_comes_close_to_what_is_reported_again_and_again() -> None:
    assert learn(*[(4000, 2000)] * 60) == pytest.approx(0.5, rel=0.01)


@examples(100)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**7)), max_size=30))
def test_estimate_stays_that_of_a_real_text(reports: list[tuple[int, int]]) -> None:
    assert 0.05 <= learn(*reports) <= 1.0


@examples(100)
@given(st.integers(256, 10**5), st.integers(1, 10**5), st.floats(0.05, 1.0))
def test_estimate_never_goes_past_what_was_seen(chars: int, tokens: int, first: float) -> None:
    seen = min(1.0, max(0.05, tokens / chars))
    after = learn((chars, tokens), first_estimate=first)
    assert min(first, seen) - 1e-9 <= after <= max(first, seen) + 1e-9
