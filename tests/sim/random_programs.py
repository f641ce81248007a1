"""Random programs, arrivals and faults for properties of the simulator."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.sim.program import Arrival, Constant, Output, Program, ProgramCall
from parrot_backend.sim.spec import Fault

_CRITERIA = [
    Criteria(CriteriaKind.LATENCY),
    Criteria(CriteriaKind.THROUGHPUT),
    Criteria(CriteriaKind.UNSTATED),
    Criteria(CriteriaKind.LATENCY, deadline_s=1.0),
]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Return programs of up to six calls that read each other in all ways."""
    calls: list[ProgramCall] = []
    for number in range(draw(st.integers(1, 6))):
        constants = st.builds(Constant, st.sampled_from("xyz"), st.integers(1, 40))
        outputs = st.builds(Output, st.sampled_from([c.name for c in calls] or ["none"]))
        pieces = st.lists(constants | outputs if calls else constants, min_size=1, max_size=4)
        after = st.lists(st.sampled_from([c.name for c in calls]), max_size=2) if calls else None
        calls.append(
            ProgramCall(
                f"c{number}",
                tuple(draw(pieces)),
                draw(st.integers(1, 30)),
                draw(st.none() | st.integers(1, 40)),
                think_s=draw(st.sampled_from([0.0, 0.0, 0.0, 0.3])),
                after=() if after is None else tuple(draw(after)),
            )
        )
    names = st.lists(st.sampled_from([c.name for c in calls]), min_size=1, unique=True)
    wanted = tuple((name, draw(st.sampled_from(_CRITERIA))) for name in draw(names))
    return Program("app", tuple(calls), wanted)


@st.composite
def arrivals(draw: st.DrawFn) -> list[Arrival]:
    """Return a few programs, some of them of the same user or at the same time."""
    kinds = draw(st.lists(programs(), min_size=1, max_size=3))
    times = sorted(draw(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 4.0]), max_size=8)))
    return [
        Arrival(time_s, draw(st.sampled_from(kinds)), draw(st.sampled_from(["", "ann", "bob"])))
        for time_s in times
    ]


def faults(num_engines: int) -> st.SearchStrategy[list[Fault]]:
    """Return losses, returns and slowdowns, some of which hang an engine."""
    return st.lists(
        st.builds(
            Fault,
            st.sampled_from([0.0, 0.2, 0.25, 0.5, 1.1, 3.0, 9.0]),
            st.integers(0, num_engines - 1),
            st.sampled_from(["lost", "lost", "joins", "slow"]),
            st.sampled_from([0.5, 3.0, math.inf]),
        ),
        max_size=8,
    )
