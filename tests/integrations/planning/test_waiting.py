"""Calls that wait for late values, found among many by their ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.protocol import InputSegment, TextSegment
from parrot_integrations.planning.calls import CallOptions, ModelCall, Segments
from parrot_integrations.planning.holes import fill_holes
from parrot_integrations.planning.mirror import Mirror
from parrot_integrations.planning.steps import PlannedCall

OPTIONS = CallOptions()


def call(number: int, content: Segments) -> PlannedCall:
    return PlannedCall(f"n{number}", ModelCall(OPTIONS, prompt=""), (content,), f"o{number}", "c")


def asked(text: str) -> ModelCall:
    return ModelCall(OPTIONS, prompt=text)


_segments = st.lists(
    st.one_of(
        st.builds(lambda t: TextSegment(text=t), st.text("ab", min_size=1, max_size=2)),
        st.builds(lambda n: InputSegment(variable=n), st.sampled_from(["h", "g", "k"])),
    ),
    min_size=1,
    max_size=4,
).map(tuple)


@given(st.lists(_segments, min_size=1, max_size=6), st.text("ab", max_size=6))
def test_a_call_is_found_whenever_one_of_them_fits(contents: list[Segments], text: str) -> None:
    steps = [call(i, content) for i, content in enumerate(contents)]
    mirror = Mirror.of(steps, {"k": "a"}, ["h", "g"])
    fitting = [s.output for s in steps if fill_holes(s.contents, [text], {"k": "a"}) is not None]
    found = mirror.find(asked(text))
    assert (found is not None) == bool(fitting)
    if found is not None:
        assert found.call.output in fitting


def test_a_call_is_found_once() -> None:
    content = (TextSegment(text="a "), InputSegment(variable="h"))
    mirror = Mirror.of([call(0, content)], {}, ["h"])
    found = mirror.find(asked("a x"))
    assert found is not None
    assert found.learnt == {"h": "x"}
    mirror.learn("h", "x")
    assert mirror.find(asked("a x")) is None


def test_what_becomes_known_narrows_what_fits() -> None:
    content = (
        InputSegment(variable="h"),
        TextSegment(text="-"),
        InputSegment(variable="g"),
    )
    mirror = Mirror.of([call(0, content), call(1, content)], {}, ["h", "g"])
    mirror.learn("h", "one")
    assert mirror.find(asked("two-x")) is None
    found = mirror.find(asked("one-x"))
    assert found is not None
    assert found.learnt == {"g": "x"}
    mirror.learn("g", "x")
    again = mirror.find(asked("one-x"))
    assert again is not None
    assert again.call.output != found.call.output
    assert again.learnt == {}
