"""Maps, branches and loops over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parrot_backend.core.control_specs import BranchSpec, Condition, LoopSpec, MapSpec
from parrot_backend.core.ids import SessionId, VariableId
from parrot_backend.core.prompt import Input
from parrot_backend.core.transforms import Strip
from parrot_backend.protocol import SubmitRequest
from parrot_backend.server.convert import SubmitContext, submit_to_event
from tests.server.conftest import StartServer, until
from tests.server.programs import Body, call, external, wanted
from tests.server.toy_engine import ToyPlan


def read(name: str, *transforms: str) -> Body:
    return {"type": "input", "variable": name, "transforms": [{"op": t} for t in transforms]}


def body(result: str, *nodes: Body) -> Body:
    return {"nodes": list(nodes), "result": result}


def map_over(items: Body, inner: Body, **fields: Any) -> Body:
    return {
        "kind": "map",
        "name": "expand",
        "items": items,
        "item": "point",
        "body": inner,
        "output": "points",
        **fields,
    }


def when(name: str, text: str, **fields: Any) -> Body:
    return {"input": read(name, "strip"), "op": "contains", "text": text, **fields}


def branch(*cases: tuple[Body, Body], otherwise: Body) -> Body:
    return {
        "kind": "branch",
        "name": "choose",
        "cases": [{"when": condition, "body": inner} for condition, inner in cases],
        "otherwise": otherwise,
        "output": "chosen",
    }


def loop(inner: Body, **fields: Any) -> Body:
    return {
        "kind": "loop",
        "name": "refine",
        "variables": [{"name": "draft", "initial": "x", "next": "better"}],
        "body": inner,
        "until": when("better", "fine"),
        "max_rounds": 3,
        "output": "refined",
        **fields,
    }


BETTER = call("improve", "improve {{input:draft}}{{output:better}}")
POINT = call("point", "{{input:x}} {{input:point}}{{output:text}}")


def skeleton() -> Body:
    """A skeleton, its points side by side, and a text of all: one submit."""
    return {
        "variables": [external("x", "tea")],
        "nodes": [
            call("skeleton", "outline {{input:x}}{{output:outline}}"),
            map_over(read("outline", "split_lines"), body("text", POINT)),
            {
                "kind": "transform",
                "name": "join",
                "content": [read("points")],
                "transforms": [{"op": "join_list", "separator": " + "}],
                "output": "joined",
            },
            call("combine", "combine {{input:joined}}{{output:out}}"),
        ],
        "outputs": wanted("out"),
    }


def answer(prompt: str) -> str:
    if prompt.startswith("outline"):
        return "1. leaves\n2. water"
    return f"<{prompt}>"


async def test_skeleton_of_thought_in_one_round_trip(start: StartServer):
    server = await start(ToyPlan(answer=answer))

    reply = await server.submit(**skeleton())

    assert reply.status_code == 200
    assert reply.json()["variables"]["out"]["value"] == "<combine <tea leaves> + <tea water>>"


async def test_instances_can_be_read_and_used(start: StartServer):
    server = await start(ToyPlan(answer=answer))
    session = (await server.submit(**skeleton())).json()["session_id"]

    found = await server.client.get(f"/v1/variables/{session}.expand:1:text")
    more = await server.submit(
        session_id=session,
        nodes=[call("more", "more {{input:expand:1:point}}{{output:more}}")],
        outputs=wanted("expand:0:text", "more"),
    )

    assert found.json()["value"] == "<tea water>"
    values = {name: view["value"] for name, view in more.json()["variables"].items()}
    assert values == {"expand:0:text": "<tea leaves>", "more": "<more water>"}


async def test_a_branch_takes_one_way(start: StartServer):
    plan = ToyPlan()
    server = await start(plan)
    node = branch(
        (when("x", "code"), body("y", call("a", "run {{input:x}}{{output:y}}"))),
        (when("x", "TEXT", ignore_case=True), body("z", call("a", "say {{input:x}}{{output:z}}"))),
        otherwise=body("x"),
    )

    values = []
    for value in ("code", "text", "other"):
        reply = await server.submit(
            variables=[external("x", value)], nodes=[node], outputs=wanted("chosen")
        )
        values.append(reply.json()["variables"]["chosen"]["value"])

    assert values == ["<run code>", "<say text>", "other"]
    assert len(plan.engine.started) == 2


async def test_a_loop_goes_on_until_it_is_fine(start: StartServer):
    def reply_of(prompt: str) -> str:
        return "fine" if prompt.count("+") == 1 else f"{prompt.split()[-1]}+"

    server = await start(ToyPlan(answer=reply_of))
    reply = await server.submit(
        variables=[external("x", "draft")],
        nodes=[loop(body("better", BETTER))],
        outputs=wanted("refined"),
    )

    assert reply.json()["variables"]["refined"]["value"] == "fine"


async def test_a_failed_instance_tells_where_it_began(start: StartServer):
    server = await start(ToyPlan())
    picky = {
        "kind": "transform",
        "name": "pick",
        "content": [read("point")],
        "transforms": [{"op": "json_field", "path": "a"}],
        "output": "field",
    }

    reply = await server.submit(
        variables=[external("x", '[{"a": "1"}, {"b": "2"}]')],
        nodes=[map_over(read("x"), body("field", picky))],
        outputs=wanted("points"),
    )

    view = reply.json()["variables"]["points"]
    assert (view["state"], view["error"]["code"]) == ("failed", "transform_failed")
    assert view["error"]["path"] == ["expand:1:field", "points"]


async def test_a_list_that_is_too_long_fails(start: StartServer):
    server = await start(ToyPlan())
    reply = await server.submit(
        variables=[external("x", "[1, 2, 3]")],
        nodes=[map_over(read("x"), body("point"), max_items=2)],
        outputs=wanted("points"),
    )
    assert reply.json()["variables"]["points"]["error"]["code"] == "too_many_items"


@pytest.mark.parametrize(
    ("node", "code"),
    [
        (map_over(read("absent"), body("point")), "unknown_variable"),
        (map_over(read("x"), body("absent")), "unknown_variable"),
        (map_over(read("x"), body("x", call("c", "p{{output:x}}"))), "duplicate_variable"),
        (map_over(read("x"), body("point", call("c", "p"))), "template_without_output"),
        (map_over(read("x"), body("y", call("c", "p{{output:a:y}}"))), "template_syntax"),
        (map_over(read("x"), body("y"), output="a:b"), "invalid_request"),
        (map_over(read("x"), body("y"), item="a:b"), "invalid_request"),
        (map_over(read("x"), body("point"), max_items=0), "invalid_request"),
        (loop(body("better", BETTER), max_rounds=65), "invalid_request"),
        (loop(body("better", BETTER), until=when("absent", "")), "unknown_variable"),
        (branch(otherwise=body("x")), "invalid_request"),
    ],
)
async def test_bad_control_nodes_are_refused(start: StartServer, node: Body, code: str):
    server = await start(ToyPlan())
    reply = await server.submit(variables=[external("x", "1")], nodes=[node])
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, code)


async def test_bodies_that_lie_too_deep_are_refused(start: StartServer):
    server = await start(ToyPlan())
    node = call("c", "p{{output:y}}")
    for level in range(30):
        node = {
            "kind": "loop",
            "name": "l",
            "body": body("y" if level == 0 else f"o{level - 1}", node),
            "until": {"input": read("x"), "op": "is_empty"},
            "max_rounds": 1,
            "output": f"o{level}",
        }
    reply = await server.submit(variables=[external("x", "1")], nodes=[node])
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "graph_too_large")


async def test_the_session_shows_control_nodes_and_instances(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    submitted = await server.submit(
        variables=[external("x", '["a"]'), external("late")],
        nodes=[
            map_over(read("x"), body("text", POINT)),
            loop(
                body("better", BETTER),
                variables=[{"name": "draft", "initial": "late", "next": "better"}],
            ),
            branch((when("late", "x"), body("x")), otherwise=body("x")),
        ],
        wait=False,
    )
    session = submitted.json()["session_id"]
    await until(lambda: len(plan.engine.started) == 1)

    view = (await server.client.get(f"/v1/sessions/{session}")).json()
    nodes = {n["id"].partition(".")[2]: (n["kind"], n["state"], n["inputs"]) for n in view["nodes"]}
    assert nodes == {
        "expand:0:point#0": ("request", "running", ["x", "expand:0:point"]),
        "expand": ("map", "running", ["expand:0:text"]),
        "refine:0:improve#0": ("request", "waiting", ["late"]),
        "refine": ("loop", "running", ["refine:0:better"]),
        "choose": ("branch", "waiting", ["late"]),
    }
    order = [n["id"].partition(".")[2] for n in view["nodes"]]
    assert order.index("expand:0:point#0") < order.index("expand")
    trace = (await server.client.get(f"/v1/sessions/{session}/timeline")).json()
    shown = {e["name"]: e["cat"] for e in trace["traceEvents"] if e["ph"] == "X"}
    assert shown["expand"] == "map"
    assert shown["refine"] == "loop"
    assert "choose" not in shown


async def test_cancelling_a_session_stops_its_instances(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    submitted = await server.submit(
        variables=[external("x", "[1, 2]")],
        nodes=[map_over(read("x"), body("text", POINT))],
        wait=False,
    )
    session = submitted.json()["session_id"]
    await until(lambda: len(plan.engine.started) == 2)
    await server.client.post(f"/v1/sessions/{session}/cancel", json={"variables": None})
    view = (await server.client.get(f"/v1/variables/{session}.points?wait=true")).json()
    assert view["state"] == "cancelled"
    assert server.service.coordinator.num_unfinished_calls == 0


async def test_a_stream_of_a_map_ends_with_its_value(start: StartServer):
    server = await start(ToyPlan())
    reply = await server.submit(
        variables=[external("x", '["a", "b"]')],
        nodes=[map_over(read("x"), body("point"))],
        outputs=wanted("points"),
        stream=True,
    )
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
    assert [e["value"] for e in events if e.get("name") == "points"] == ['["a", "b"]']


def test_control_nodes_become_specs():
    nodes = [
        map_over(read("x", "strip"), body("point"), max_items=7),
        branch((when("x", "t", negate=True), body("x")), otherwise=body("x")),
        loop(body("better", BETTER)),
    ]
    request = SubmitRequest.model_validate({"variables": [external("x")], "nodes": nodes})
    context = SubmitContext(SessionId("s"), True, "default", 0.0, {})

    over, choose, refine = submit_to_event(request, context).nodes

    assert isinstance(over, MapSpec)
    assert (over.items, over.item, over.max_items) == (
        Input(VariableId("s.x"), (Strip(),)),
        "s.point",
        7,
    )
    assert isinstance(choose, BranchSpec)
    strip = Input(VariableId("s.x"), (Strip(),))
    assert choose.cases[0].when == Condition(strip, "contains", "t", negate=True)
    assert isinstance(refine, LoopSpec)
    assert (refine.variables[0].next, refine.max_rounds) == ("s.better", 3)
