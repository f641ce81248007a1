"""Submits and leaves look at what they change, and find what a look at the whole session would."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.annotating import in_stage
from parrot_backend.core.deduction import deduce_objectives
from parrot_backend.core.ids import VariableId
from parrot_backend.core.nodes import Request
from parrot_backend.core.progress import Progress
from parrot_backend.core.session import Session
from parrot_backend.core.variable import Variable
from tests.core.chaos import SCRIPTS, Chaos, Op
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import SESSION, make_engine, make_steps, make_wanted
from tests.helpers.compiled import needs_python
from tests.helpers.core_driver import CoreDriver

_MANY = 1000


class _Counting(dict[Any, Any]):
    """A dictionary that counts what is taken out of it."""

    num_read = 0

    def __getitem__(self, key: Any) -> Any:
        self.num_read += 1
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self.num_read += 1
        return super().get(key, default)

    def values(self) -> Any:
        self.num_read += len(self)
        return super().values()

    def items(self) -> Any:
        self.num_read += len(self)
        return super().items()

    def __iter__(self) -> Any:
        self.num_read += len(self)
        return super().__iter__()


def _busy_session() -> tuple[CoreDriver, Callable[[], int]]:
    """Return a session of many unfinished calls, and how much of it has been looked at."""
    driver = CoreDriver(make_engine(max_requests=2))
    for number in range(_MANY):
        _ask(driver, number, is_new=number == 0)
    session = driver.coordinator.session(SESSION)
    graph = session.graph
    graph.nodes, graph.variables = _Counting(graph.nodes), _Counting(graph.variables)
    session.annotations = _Counting(session.annotations)
    counted = (graph.nodes, graph.variables, session.annotations)
    return driver, lambda: sum(each.num_read for each in counted)


def _ask(driver: CoreDriver, number: int, *, is_new: bool = False) -> None:
    name = f"c{number}"
    driver.submit(*make_steps(name), is_new=is_new, wanted=[make_wanted(name, waiter=f"w-{name}")])


def test_a_submit_looks_at_nothing_beside_it() -> None:
    driver, looked_at = _busy_session()

    _ask(driver, _MANY)

    assert 0 < looked_at() < 40
    assert driver.coordinator.session(SESSION).num_deduced == 1


def test_who_leaves_costs_what_only_it_wanted() -> None:
    driver, looked_at = _busy_session()

    driver.leave(f"w-c{_MANY // 2}", cancel=True)

    assert 0 < looked_at() < 40
    assert driver.coordinator.num_unfinished_calls == _MANY - 1


def _needed_by_all(session: Session) -> set[VariableId]:
    """Return what unsettled variables that are annotated or waited for depend on."""
    graph = session.graph
    needed = set[VariableId]()
    stack = [v for v in graph.variables.values() if v.waiters or v.id in session.annotations]
    while stack:
        variable = stack.pop()
        if variable.producer is None or variable.is_settled:
            continue
        for used in graph.nodes[variable.producer].reads:
            if used not in needed:
                needed.add(used)
                stack.append(graph.variables[used])
    return needed


@examples(150, shrinks=False)
@given(st.integers(0, 11), SCRIPTS)
def test_it_is_found_what_a_look_at_everything_finds(seed: int, script: list[Op]) -> None:
    deduce, needed_for_wanted = Progress.deduce, Session.needed_for_wanted

    needs_python("functions cannot be replaced")

    def deduce_and_compare(progress: Progress, session: Session) -> None:
        nodes = [node for node in session.graph.nodes.values() if isinstance(node, Request)]
        before = {node.id: node.objective for node in nodes}
        whole = deduce_objectives(session.graph, session.annotations)
        deduce(progress, session)
        for node in nodes:
            expected = before[node.id]
            if node.id in whole and not node.has_ended:
                expected = in_stage(whole[node.id], node, session.annotations.get(node.output))
            assert node.objective == expected, node.id

    def find_needed_and_compare(session: Session, variables: Iterable[Variable]) -> set[VariableId]:
        asked = list(variables)
        found = needed_for_wanted(session, asked)
        assert {v.id for v in asked} & _needed_by_all(session) == {v.id for v in asked} & found
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "deduce", deduce_and_compare)
        patch.setattr(Session, "needed_for_wanted", find_needed_and_compare)
        chaos = Chaos(seed)
        chaos.play(script)
        for session in chaos.driver.coordinator.sessions:
            nodes = session.graph.nodes.values()
            unfinished = [n for n in nodes if isinstance(n, Request) and not n.has_ended]
            assert session.num_unfinished == len(unfinished)
        chaos.end()
