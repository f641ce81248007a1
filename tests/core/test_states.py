"""The state machines of variables and nodes, every move written out."""

from __future__ import annotations

import itertools

import pytest

from parrot_backend.core.ids import VariableId
from parrot_backend.core.nodes import NODE_TRANSITIONS, NodeState
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.variable import TRANSITIONS, Variable, VariableState
from tests.helpers.builders import make_request

V, N = VariableState, NodeState

VARIABLE_MOVES = {
    (V.EMPTY, V.GENERATING),
    (V.EMPTY, V.READY),
    (V.EMPTY, V.FAILED),
    (V.EMPTY, V.CANCELLED),
    (V.GENERATING, V.EMPTY),
    (V.GENERATING, V.READY),
    (V.GENERATING, V.FAILED),
    (V.GENERATING, V.CANCELLED),
}
NODE_MOVES = {
    (N.WAITING, N.READY),
    (N.WAITING, N.FINISHED),
    (N.WAITING, N.FAILED),
    (N.WAITING, N.CANCELLED),
    (N.READY, N.RUNNING),
    (N.READY, N.FINISHED),
    (N.READY, N.FAILED),
    (N.READY, N.CANCELLED),
    (N.RUNNING, N.READY),
    (N.RUNNING, N.FINISHED),
    (N.RUNNING, N.FAILED),
    (N.RUNNING, N.CANCELLED),
}
ALL_VARIABLE_MOVES = list(itertools.product(VariableState, repeat=2))
ALL_NODE_MOVES = list(itertools.product(NodeState, repeat=2))


@pytest.mark.parametrize(("before", "after"), ALL_VARIABLE_MOVES)
def test_move_of_a_variable(before: VariableState, after: VariableState) -> None:
    variable = Variable(VariableId("s.x"), state=before)
    if (before, after) in VARIABLE_MOVES:
        variable.move(after)
        assert variable.state is after
    else:
        with pytest.raises(AssertionError):
            variable.move(after)
        assert variable.state is before


@pytest.mark.parametrize(("before", "after"), ALL_NODE_MOVES)
def test_move_of_a_node(before: NodeState, after: NodeState) -> None:
    request = make_request()
    request.state = before
    if (before, after) in NODE_MOVES:
        request.move(after)
        assert request.state is after
    else:
        with pytest.raises(AssertionError):
            request.move(after)
        assert request.state is before


def test_every_state_of_a_variable_has_its_row() -> None:
    assert set(TRANSITIONS) == set(VariableState)


def test_every_state_of_a_node_has_its_row() -> None:
    assert set(NODE_TRANSITIONS) == set(NodeState)


@pytest.mark.parametrize("state", VariableState)
def test_settled_states_of_a_variable(state: VariableState) -> None:
    is_settled = Variable(VariableId("s.x"), state=state).is_settled
    assert is_settled is (state in {V.READY, V.FAILED, V.CANCELLED})


@pytest.mark.parametrize("state", NodeState)
def test_ended_states_of_a_node(state: NodeState) -> None:
    request = make_request()
    request.state = state
    assert request.has_ended is (state in {N.FINISHED, N.FAILED, N.CANCELLED})


@pytest.mark.parametrize("state", [V.READY, V.FAILED, V.CANCELLED])
def test_settled_variable_has_no_way_out(state: VariableState) -> None:
    assert TRANSITIONS[state] == frozenset()


@pytest.mark.parametrize("state", [N.FINISHED, N.FAILED, N.CANCELLED])
def test_ended_node_has_no_way_out(state: NodeState) -> None:
    assert NODE_TRANSITIONS[state] == frozenset()


def test_new_request_waits() -> None:
    assert make_request().state is NodeState.WAITING


def test_need_of_a_request_is_prompt_and_longest_output() -> None:
    request = make_request(need_tokens=100, max_tokens=30)
    assert (request.prompt_tokens, request.need_tokens) == (70, 100)


def test_output_without_a_limit_is_reserved_like_one_with_the_default_limit() -> None:
    assert Sampling(max_tokens=None).reserved_for(None) == Sampling().reserved_for(None)
    assert Sampling(max_tokens=100).reserved_for(None) == 100
    # A generous limit says little; one that is reached for certain says all.
    assert Sampling(max_tokens=4096).reserved_for(None) == 512
    assert Sampling(max_tokens=4096, ignore_eos=True).reserved_for(None) == 4096


def test_output_is_reserved_as_long_as_others_of_its_kind_were() -> None:
    assert Sampling(max_tokens=None).reserved_for(900) == 900
    assert [Sampling(max_tokens=50).reserved_for(n) for n in (9, 900)] == [9, 50]
    assert Sampling(max_tokens=4096).reserved_for(900) == 900
    assert Sampling(max_tokens=4096, ignore_eos=True).reserved_for(9) == 4096
