import pytest

from parrot_backend.demo.report import table_rows
from parrot_backend.demo.summary import summarise
from tests.demo.records import chain_pair

PAIRS = [chain_pair(1.2, 0.5), chain_pair(0.9, 0.45), chain_pair(1.0, 0.6, text="other noise")]


@pytest.fixture
def summary():
    return summarise("chain", PAIRS, round_trip_s=0.25)


def test_times_are_medians_with_their_spread(summary):
    assert summary.call_by_call.e2e_s == 1.0
    assert (summary.call_by_call.fastest_s, summary.call_by_call.slowest_s) == (0.9, 1.2)
    assert summary.one_submit.e2e_s == 0.5


def test_the_typical_run_is_the_one_with_the_median_time(summary):
    assert summary.one_submit.typical is PAIRS[0].one_submit


def test_ratios_compare_runs_of_the_same_repetition(summary):
    # Repetition by repetition: 2.4, 2.0, 1.667.
    assert summary.one_submit.speedup == pytest.approx(2.0)
    assert summary.call_by_call.speedup == 1.0


def test_the_distance_to_the_bound_is_taken_in_both_modes(summary):
    assert summary.bound_s == pytest.approx(0.45)
    assert summary.one_submit.over_bound == pytest.approx(0.5 / 0.45)
    assert summary.call_by_call.over_bound == pytest.approx(1.0 / 0.45)


def test_prompt_tokens_are_split_into_computed_and_reused(summary):
    assert (summary.call_by_call.computed_tokens, summary.call_by_call.reused_tokens) == (200, 0)
    assert (summary.one_submit.computed_tokens, summary.one_submit.reused_tokens) == (168, 32)


def test_different_texts_are_noticed(summary):
    assert summary.same_texts == 2


def test_the_table_has_a_heading_and_a_line_per_mode(summary):
    assert table_rows([summary]) == [
        ("chain",),
        ("  call by call", "1.00 s", "0.90-1.20", "2", "200 + 0", "", "2.22"),
        ("  one submit", "0.50 s", "0.45-0.60", "1", "168 + 32", "2.00 x", "1.11"),
    ]
