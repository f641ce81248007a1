"""Ids are readable strings, built from what the client chose."""

from __future__ import annotations

from parrot_backend.core.ids import NodeId, SessionId, VariableId, name_of, session_of, variable_id


def test_variable_id_is_session_and_name() -> None:
    assert variable_id(SessionId("s1"), "code") == "s1.code"


def test_session_of_a_variable() -> None:
    assert session_of(VariableId("s1.code")) == "s1"


def test_session_of_a_node() -> None:
    assert session_of(NodeId("s1.write#0")) == "s1"


def test_name_of_a_variable() -> None:
    assert name_of(VariableId("s1.code")) == "code"


def test_name_of_a_node_keeps_the_step() -> None:
    assert name_of(NodeId("s1.write#0")) == "write#0"


def test_name_of_the_longest_name() -> None:
    assert name_of(variable_id(SessionId("s"), "n" * 128)) == "n" * 128
