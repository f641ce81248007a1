from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.chat import ChatOptions, MessageHead, NamedTool, Tool, ToolCall
from parrot_backend.core.config import CoreConfig, SchedulerConfig
from parrot_backend.core.control_specs import BodySpec, MapSpec
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.event_codec import CodecError, decode, encode
from parrot_backend.core.events import (
    CallSpec,
    EngineReported,
    Event,
    GraphSubmitted,
    RequestFinished,
    RequestUsage,
    VariableSpec,
    Wanted,
)
from parrot_backend.core.ids import AttemptId, EngineId, SessionId, VariableId
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.prompt import Input, Output, Role, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.transforms import Split, Strip
from tests.core.hypothesis_settings import examples
from tests.helpers.compiled import needs_python

needs_python("its records do not say of what types their fields are")

_V = VariableId("s.x")


def _through_json(value: Any, declared: Any = Event) -> Any:
    return decode(declared, json.loads(json.dumps(encode(value))))


_CALL = CallSpec(
    "a",
    (
        Role("user", MessageHead("ann", (ToolCall("1", "f", "{}"),), "2")),
        Text("1e5"),
        Input(_V, (Strip("left"), Split(",", -1))),
        Output(_V, Sampling(max_tokens=None, stop=("inf",), seed=3)),
    ),
    chat=ChatOptions(
        (Tool("f", "d", "{}"),), NamedTool("f"), template_kwargs=(("k", 1), ("l", True))
    ),
    stage="inf",
)


@pytest.mark.parametrize(
    "event",
    [
        GraphSubmitted(
            SessionId("s"),
            is_new=True,
            metadata=(("a", 1), ("b", 1.0), ("c", True), ("d", None), ("e", "inf")),
            variables=(VariableSpec("v"), VariableSpec("w", "")),
            nodes=(
                _CALL,
                MapSpec("m", Input(_V), _V, BodySpec((_CALL,), _V), _V),
            ),
            wanted=(Wanted(_V, Criteria(CriteriaKind.LATENCY, math.inf, 1.0)),),
            ttl_s=math.inf,
        ),
        EngineReported(
            EngineId("e"), (PrefixBoundary(b"\x00\xff", 7),), (b"", b"a"), is_snapshot=True
        ),
        RequestFinished(AttemptId("a"), "\ud800", (1, 2), "stop", RequestUsage(1, 2, 3, 0.1)),
    ],
)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    again = _through_json(event)
    assert again == event
    # True == 1 == 1.0, but not in text.
    assert repr(again) == repr(event)


@pytest.mark.parametrize("kind", [k for k in get_args(Event) if k is not GraphSubmitted])
def test_any_event_comes_back_as_it_was(kind: type) -> None:
    @examples(20)
    @given(st.from_type(kind))
    def check(event: Any) -> None:
        assert repr(_through_json(event)) == repr(event)  # where no number is, too

    check()


def test_settings_come_back_as_they_were() -> None:
    scheduler = SchedulerConfig(placement="fcfs", max_wait_s=math.inf, tenant_weights={"is": 2.5})
    config = CoreConfig(scheduler=scheduler)
    assert _through_json(config, CoreConfig) == config
    assert _through_json(CoreConfig(), CoreConfig) == CoreConfig()
    shares = CoreConfig(scheduler=SchedulerConfig(tenant_weights={"ann": 2.0, "is": 0.5}))
    assert _through_json(shares, CoreConfig) == shares


def test_what_is_as_by_default_is_left_out() -> None:
    assert encode(RequestUsage(1, 2)) == {
        "is": "RequestUsage",
        "prompt_tokens": 1,
        "completion_tokens": 2,
    }


@pytest.mark.parametrize(
    ("declared", "value", "said"),
    [
        (Event, {"is": "Nonsense"}, "none of what it may be"),
        (Event, [], "none of what it may be"),
        (RequestUsage, {"is": "RequestUsage"}, "missing 2 required"),
        (RequestUsage, {"is": "RequestUsage", "tokens": 1}, "no field 'tokens'"),
        (RequestUsage, {"is": "RequestUsage", "prompt_tokens": "1"}, "prompt_tokens: expected int"),
        (RequestUsage, {"is": "RequestUsage", "prompt_tokens": True}, "expected int, got True"),
        (VariableSpec, {"is": "VariableSpec", "name": "n", "value": 1}, "value: 1 is none"),
        (CriteriaKind, "fast", "no CriteriaKind"),
        (Strip, {"is": "Strip", "side": "top"}, "none of"),
        (PrefixBoundary, ["0g", 1], "hexadecimal"),
        (PrefixBoundary, ["00"], "expected PrefixBoundary"),
        (tuple[int, ...], 5, "expected an array"),
        (tuple[int, str], [5], "expected 2 items"),
        (Mapping[str, float], [5], "expected an object"),
        (Mapping[str, float], {"a": 1, "b": "c"}, r"\['b'\]: expected float"),
    ],
)
def test_what_is_something_else_is_rejected(declared: Any, value: Any, said: str) -> None:
    with pytest.raises(CodecError, match=said):
        decode(declared, value)


def test_what_no_record_holds_is_not_written() -> None:
    with pytest.raises(TypeError, match="object"):
        encode(object())
