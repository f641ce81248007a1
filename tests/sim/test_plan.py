from __future__ import annotations

import pytest

from parrot_backend.sim.plan import plan_of
from parrot_backend.sim.program import Arrival, Constant, Output, Program
from parrot_backend.sim.workloads.checks import WorkloadError
from tests.sim.programs import make_call, make_program, run

A, SYS = make_call("a"), Constant("system", 50)

BAD: dict[str, tuple[Program, str]] = {
    "no calls": (Program("app", (), ()), "nothing is wanted"),
    "nothing wanted": (Program("app", (A,), ()), "nothing is wanted"),
    "wanted twice": (make_program(A, wanted=("a", "a")), "twice"),
    "unknown is wanted": (make_program(A, wanted=("b",)), "'b'"),
    "reads a later call": (make_program(make_call("b", Output("a")), A), "needs 'a'"),
    "reads itself": (make_program(make_call("a", Output("a"))), "needs 'a'"),
    "comes after nobody": (make_program(make_call("a", after=("z",))), "needs 'z'"),
    "same name": (make_program(A, A), "'a' has the name of another"),
    "no output": (make_program(make_call("a", tokens=0)), "length of 0 tokens"),
    "no output allowed": (make_program(make_call("a", max_tokens=0)), "length of 0 tokens"),
    "empty text": (make_program(make_call("a", Constant("x", 0))), "0 tokens"),
    "negative think time": (make_program(make_call("a", think_s=-1.0)), "-1.0 s"),
    "no prompt": (make_program(A, A.__class__("b", (), 1)), "no prompt"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_program_that_cannot_run_is_rejected(name: str) -> None:
    program, said = BAD[name]
    with pytest.raises(WorkloadError, match=said):
        plan_of(program)


@pytest.mark.parametrize("name", BAD)
def test_and_its_job_ends_with_a_record_that_says_so(name: str) -> None:
    program, said = BAD[name]
    records, ending = run([Arrival(1.0, program), Arrival(2.0, make_program(A))])
    assert [(r.job, said in r.failed) for r in records.jobs] == [(0, True), (1, False)]
    assert records.jobs[0].failed.startswith("invalid: ")
    assert ending.reason == "done"


def test_a_plan_says_who_needs_whom() -> None:
    b = make_call("b", SYS, Output("a"), Output("a"))
    c = make_call("c", Output("b"), Output("a"), after=("b",), tokens=9, max_tokens=5)
    plan = plan_of(make_program(A, b, c, wanted=("c", "a")))
    assert plan.needs == ((), (0,), (1, 0))
    assert plan.readers == ((1, 2), (2,), ())
    assert plan.wanted == (2, 0)
    assert plan.output_tokens == 20 + 20 + 5


def test_a_plan_knows_what_another_prompt_goes_on_from() -> None:
    first = make_call("first", SYS, Constant("q", 5))
    goes_on = make_call("goes on", SYS, Constant("q", 5), Output("first"), Constant("r", 5))
    other = make_call("other", SYS, Output("goes on"))
    assert plan_of(make_program(first, goes_on, other)).continued == {0}
