"""Identifiers of the core. All are strings, so that they print and serialise as they are."""

from __future__ import annotations

from typing import NewType

#: Unguessable id of one run of an application, made by the shell.
SessionId = NewType("SessionId", str)
#: ``<session id>.<name>``; a client that knows both can compute it.
VariableId = NewType("VariableId", str)
#: ``<session id>.<call name>`` for transforms, ``<session id>.<call name>#<step>`` for requests.
NodeId = NewType("NodeId", str)
#: ``<node id>~<attempt>``: one try of one request on one engine.
AttemptId = NewType("AttemptId", str)
#: One incarnation of an engine; a restarted engine joins under a new id.
EngineId = NewType("EngineId", str)
#: Somebody who waits for a value, made by the shell.
WaiterId = NewType("WaiterId", str)
#: ``<node id of the smallest member>``: requests whose completion together is what counts.
TaskGroupId = NewType("TaskGroupId", str)


def variable_id(session_id: SessionId, name: str) -> VariableId:
    """Return the global id of a session's variable."""
    return VariableId(f"{session_id}.{name}")


def session_of(identifier: VariableId | NodeId) -> SessionId:
    """Return the session part of a variable or node id."""
    return SessionId(identifier.partition(".")[0])


def node_of(attempt: AttemptId) -> NodeId:
    """Return the request that an attempt is one of."""
    return NodeId(attempt.rpartition("~")[0])


def name_of(identifier: VariableId | NodeId) -> str:
    """Return the part of an id that the client chose."""
    return identifier.partition(".")[2]
