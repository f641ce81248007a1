"""Following: what a follower of a control node's output hears of, and what finding it costs."""

from __future__ import annotations

from typing import NoReturn

from parrot_backend.core.commands import Command, FollowInstance
from parrot_backend.core.following import Following
from parrot_backend.core.ids import NodeId, WaiterId, name_of
from parrot_backend.core.nodes import Node
from parrot_backend.core.variable import Variable
from tests.core.audit import audited_driver
from tests.helpers.builders import SESSION, make_body, make_engine, make_map, var


class OnlyById(dict[NodeId, Node]):
    """Nodes that may be looked up, but not looked through."""

    def values(self) -> NoReturn:
        raise AssertionError("all nodes of the session are looked through")

    __iter__ = items = keys = values


def test_a_follower_finds_what_is_there_without_a_look_at_every_node() -> None:
    inner = make_map("k", "x", make_body("z", "z: part y"), item="part")
    outer = make_map("m", "x", make_body("k", "y: item", inner))
    other = make_map("other", "x", make_body("y", "y: item"))
    driver = audited_driver(make_engine())
    driver.submit(outer, other, variables={"x": '["a", "b"]'})
    session = driver.coordinator.session(SESSION)
    requests = [n for n in session.graph.nodes.values() if n.id.startswith(f"{SESSION}.m:")]
    expected = [name_of(node.output) for node in requests if "#" in node.id]
    session.graph.nodes = OnlyById(session.graph.nodes)

    commands = list[Command]()
    attached = list[str]()

    def attach(variable: Variable, waiter: WaiterId, *, is_streaming: bool) -> None:
        attached.append(variable.name)

    following = Following(commands.append, attach)
    variable = session.find(var("m"))
    following.begin(session, variable, WaiterId("w"), is_streaming=True)

    assert len(expected) == 6
    assert attached == expected
    assert [name_of(c.variable) for c in commands if isinstance(c, FollowInstance)] == expected
