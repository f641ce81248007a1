"""Jobs at the rate that was asked for, from applications and from traces."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from parrot_backend.sim.source import app_source, trace_source
from parrot_backend.sim.survey import survey_of
from parrot_backend.sim.workloads.checks import WorkloadError
from parrot_backend.sim.workloads.registry import make_workload


def test_an_application_with_a_rate_is_asked_for_it() -> None:
    jobs = list(app_source("copilot", 3, {"arrivals": "uniform"}, num_jobs=11).arrivals(4.0))
    assert [job.time_s for job in jobs] == pytest.approx([n / 4 for n in range(11)])
    known = make_workload("copilot", 3, {"rate_per_s": 4.0, "jobs": 11, "arrivals": "uniform"})
    assert jobs == list(known)


def test_times_of_one_without_are_stretched() -> None:
    source = app_source("azure", 1, {}, num_jobs=50)
    own, fast = list(source.arrivals(None)), list(source.arrivals(2 * source.own_rate_per_s))
    assert [job.program for job in fast] == [job.program for job in own]
    assert [job.time_s for job in fast] == pytest.approx([job.time_s / 2 for job in own])
    assert survey_of(source.arrivals(7.0)).rate_per_s == pytest.approx(7.0)


@pytest.mark.parametrize("app", ["copilot", "azure"])
def test_a_duration_ends_the_arrivals(app: str) -> None:
    jobs = list(app_source(app, 1, {}, duration_s=20.0).arrivals(5.0))
    assert 20 < len(jobs) < 200
    assert all(job.time_s <= 20.0 for job in jobs)
    fewer = app_source(app, 1, {}, num_jobs=7, duration_s=20.0).arrivals(5.0)
    # A trace's rate is that of the jobs that are drawn.
    assert [job.program for job in fewer] == [job.program for job in jobs[:7]]


@pytest.mark.parametrize(
    ("app", "given", "more", "said"),
    [
        ("nothing", {}, {}, "there is no workload 'nothing'"),
        ("copilot", {"size": "1"}, {}, "size"),
        ("copilot", {"output_tokens": "many"}, {}, "output_tokens must be a whole number"),
        ("copilot", {"rate_per_s": "1"}, {}, "give rate_per_s by --rate"),
        ("copilot", {"jobs": "1"}, {}, "give jobs by --jobs"),
        ("copilot", {}, {"num_jobs": 0}, "jobs must be at least 1, not 0"),
        ("copilot", {}, {"duration_s": 0.0}, "duration must be above zero"),
    ],
)
def test_what_cannot_be_is_told_at_once(
    app: str, given: dict[str, str], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(WorkloadError, match=said):
        app_source(app, 1, given, **more)


def test_jobs_that_begin_together_have_no_rate() -> None:
    source = app_source("mixed", 1, {}, num_jobs=1)
    with pytest.raises(WorkloadError, match="begin at once"):
        list(source.arrivals(2.0))
    with pytest.raises(WorkloadError, match="rate must be above zero"):
        source.arrivals(0.0)


def test_lines_of_a_trace_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    line = '{"timestamp": %d, "input_length": 30, "output_length": 4, "hash_ids": []}\n'
    path.write_text(line % 0 + "nonsense\n" + line % 2000)
    source = trace_source(path)
    for _ in range(2):
        assert [job.time_s for job in source.arrivals(None)] == [0.0, 2.0]
    assert source.report is not None
    assert (source.report.num_read, source.report.num_bad) == (2, 1)
    assert source.report.bad[0].number == 2
    assert [job.time_s for job in source.arrivals(2.0)] == [0.0, 0.5]
    assert len(list(islice(trace_source(path, num_jobs=1).arrivals(None), 5))) == 1


def test_a_trace_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        trace_source(tmp_path / "none.jsonl")
