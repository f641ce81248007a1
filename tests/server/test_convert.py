from __future__ import annotations

from typing import Any

import pytest

from parrot_backend.core import transforms
from parrot_backend.core.criteria import CriteriaKind
from parrot_backend.core.events import CallSpec, GraphSubmitted, TransformSpec
from parrot_backend.core.ids import SessionId, VariableId, WaiterId
from parrot_backend.core.prompt import Input, Output, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.protocol import SubmitRequest, WireCriteria
from parrot_backend.server.convert import (
    SubmitContext,
    criteria_to_core,
    digest_of,
    submit_to_event,
)
from tests.server.programs import Body, call, one_call


def convert(body: Body, **waiters: str) -> GraphSubmitted:
    waiter_of = {name: WaiterId(waiter) for name, waiter in waiters.items()}
    context = SubmitContext(SessionId("s"), True, "default", 100.0, waiter_of)
    return submit_to_event(SubmitRequest.model_validate(body), context)


def digest(**fields: Any) -> str:
    return digest_of(SubmitRequest.model_validate(one_call(**fields)))


def test_a_template_becomes_segments_with_global_ids():
    event = convert({"nodes": [call("a", "Do {{input:x}}, {{ no }}: {{output:y}}.")]})

    (spec,) = event.nodes
    assert isinstance(spec, CallSpec)
    assert spec.segments == (
        Text("Do "),
        Input(VariableId("s.x")),
        Text(", {{ no }}: "),
        Output(VariableId("s.y"), Sampling()),
        Text("."),
    )


@pytest.mark.parametrize(("number", "kept"), [(32, 32), (33, 32), (1000, 32)])
def test_of_many_constants_in_a_row_only_the_first_stay_apart(number: int, kept: int):
    texts = [{"type": "text", "text": f"{i};"} for i in range(number)]
    output = {"type": "output", "variable": "y"}
    event = convert({"nodes": [call("a", [*texts, output])]})

    (spec,) = event.nodes
    assert isinstance(spec, CallSpec)
    segments = [s for s in spec.segments if isinstance(s, Text)]
    assert (len(segments), len(spec.segments)) == (kept, kept + 1)
    assert "".join(s.text for s in segments) == "".join(f"{i};" for i in range(number))
    assert [s.text for s in segments[:31]] == [f"{i};" for i in range(31)]


def test_every_sampling_parameter_is_passed_on():
    given: Body = {
        "max_tokens": 1,
        "temperature": 0.2,
        "top_p": 0.3,
        "top_k": 4,
        "min_p": 0.5,
        "seed": 6,
        "stop": ["7"],
        "min_tokens": 1,
        "presence_penalty": 0.9,
        "frequency_penalty": 1.0,
        "repetition_penalty": 1.1,
        "ignore_eos": True,
    }
    event = convert({"nodes": [call("a", "x{{output:y}}", sampling=given)]})

    (spec,) = event.nodes
    assert isinstance(spec, CallSpec)
    assert spec.segments[1] == Output(
        VariableId("s.y"),
        Sampling(1, 0.2, 0.3, 4, 0.5, 6, ("7",), 1, 0.9, 1.0, 1.1, True),
    )


def test_every_transform_has_its_counterpart():
    ops = [
        {"op": "strip"},
        {"op": "strip", "side": "left"},
        {"op": "html_escape"},
        {"op": "html_unescape"},
        {"op": "regex_group", "pattern": "(a)", "group": 1},
        {"op": "json_field", "path": "a.b"},
        {"op": "split", "separator": ",", "index": -1},
        {"op": "format", "template": "<{}>"},
    ]
    node = {"kind": "transform", "name": "t", "content": "x", "output": "y", "transforms": ops}
    (spec,) = convert({"nodes": [node]}).nodes

    assert isinstance(spec, TransformSpec)
    assert spec.transforms == (
        transforms.Strip(),
        transforms.Strip("left"),
        transforms.HtmlEscape(),
        transforms.HtmlUnescape(),
        transforms.RegexGroup("(a)", 1),
        transforms.JsonField("a.b"),
        transforms.Split(",", -1),
        transforms.Format("<{}>"),
    )


def test_each_wanted_output_gets_its_waiter():
    event = convert(one_call(stream=True), out="w7")

    (wanted,) = event.wanted
    assert (wanted.variable, wanted.waiter, wanted.stream) == ("s.out", "w7", True)


UNTOLD = [{"variable": "out", "tokens": False}]


@pytest.mark.parametrize(
    ("fields", "quiet"),
    [
        ({}, True),
        ({"wait": False}, False),
        ({"timeout_s": 5.0}, False),
        ({"outputs": []}, False),
        ({"outputs": UNTOLD}, True),
        ({"outputs": UNTOLD, "wait": False}, False),
        ({"stream": True}, False),
        ({"stream": True, "outputs": UNTOLD}, True),
        ({"stream": True, "outputs": UNTOLD, "timeout_s": 5.0}, True),
        ({"stream": True, "outputs": []}, False),
    ],
)
def test_a_submit_is_quiet_if_nobody_can_read_what_is_generated(fields: Body, quiet: bool):
    assert convert(one_call(**fields)).quiet is quiet


def test_a_submit_is_not_quiet_if_one_output_is_streamed():
    outputs = [*UNTOLD, {"variable": "other"}]
    assert not convert(one_call(stream=True, outputs=outputs)).quiet


def test_a_stream_of_nothing_changes_nothing_in_a_session_that_is_there():
    context = SubmitContext(SessionId("s"), False, "default", 100.0, {})
    body = SubmitRequest.model_validate({"session_id": "s", "stream": True})
    assert submit_to_event(body, context).quiet


@pytest.mark.parametrize("target", ["deadline_s", "ttft_s", "tpot_s"])
def test_a_target_makes_a_value_latency_sensitive(target: str):
    criteria = WireCriteria.model_validate({"kind": "throughput", target: 2.0})

    assert criteria_to_core(criteria, 100.0).kind is CriteriaKind.LATENCY


def test_a_relative_deadline_becomes_absolute():
    assert criteria_to_core(WireCriteria(deadline_s=2.0), 100.0).deadline_s == 102.0


def test_how_to_answer_is_not_part_of_the_digest():
    assert digest() == digest(wait=False, stream=True, timeout_s=1.0, on_disconnect="cancel")


@pytest.mark.parametrize(
    "other", [{"prompt": "bye"}, {"app": "b"}, {"close": True}, {"outputs": []}]
)
def test_what_to_run_is_part_of_the_digest(other: Body):
    assert digest() != digest(**other)


def test_without_a_key_no_digest_is_made():
    assert convert(one_call()).digest == ""
    assert convert(one_call(idempotency_key="k")).digest != ""
