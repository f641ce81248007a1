"""Streaming a value: pieces of text, restarts, ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import parrot_integrations as P
from parrot_backend.protocol import VariableView
from parrot_integrations.deadline import Deadline
from parrot_integrations.values import Known, TextFollower
from tests.helpers.fake_parrot import FakeParrot


@P.SemanticFunction
def Ask(question: P.SemanticVariable):
    """Q: {{input:question}} A: {{output:answer}}"""


def text(text: str) -> Known:
    return Known(text=text)


def settled(value: str) -> Known:
    return Known(view=VariableView(id="s.y", name="y", state="ready", value=value))


# --- from states to pieces ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "pieces"),
    [
        pytest.param([text("a"), text("ab"), settled("abc")], ["a", "b", "c"], id="growing"),
        pytest.param([text("ab"), text("ab")], ["ab", ""], id="nothing new"),
        pytest.param(
            [text("ab"), text(""), text("a"), text("abc")], ["ab", "", "", "c"], id="same again"
        ),
        pytest.param([text("ab"), text(""), settled("abc")], ["ab", "", "c"], id="end after reset"),
        pytest.param([settled("abc")], ["abc"], id="never streamed"),
    ],
)
def test_each_piece_is_returned_once(states: list[Known], pieces: list[str]) -> None:
    follower = TextFollower()
    assert [follower.advance(state) for state in states] == pieces


@pytest.mark.parametrize(
    "states",
    [
        pytest.param([text("ab"), text("x")], id="another text"),
        pytest.param([text("ab"), text("axe")], id="another end"),
        pytest.param([text("ab"), settled("a")], id="a shorter value"),
    ],
)
def test_a_text_that_changed_is_an_error(states: list[Known]) -> None:
    follower = TextFollower()
    follower.advance(states[0])
    with pytest.raises(P.StreamRestarted):
        follower.advance(states[1])


def test_a_failure_is_raised() -> None:
    with pytest.raises(P.ValueFailed):
        TextFollower().advance(Known(view=VariableView(id="s.y", name="y", state="failed")))


# --- streams of variables -----------------------------------------------------------------------


def test_the_pieces_make_the_value(program: P.Program) -> None:
    assert "".join(Ask("one").stream()) == "<Q: one A: >"


def test_a_stream_and_a_get_are_one_request(fake: FakeParrot, program: P.Program) -> None:
    answer = Ask("one")
    list(answer.stream())
    answer.get()
    assert fake.log == ["POST /v1/submit"]


def test_text_arrives_while_it_is_generated(fake: FakeParrot, program: P.Program) -> None:
    fake.held = {"Ask-answer"}
    answer, other = Ask("one"), Ask("other")
    other.get()
    stream = answer.stream()
    fake.say("Ask-answer", "Once")
    first = next(stream)
    fake.finish("Ask-answer", "Once upon")
    assert [first, *stream] == ["Once", " upon"]


def test_a_constant_streams_in_one_piece() -> None:
    assert list(P.SemanticVariable("v").stream()) == ["v"]


def test_a_variable_between_calls_can_be_streamed_later(program: P.Program) -> None:
    first = Ask("one")
    Ask(first).get()
    assert "".join(first.stream()) == "<Q: one A: >"


def follow(fake: FakeParrot, *actions: Callable[[], None]) -> list[str]:
    """Stream a held variable, doing one action after each piece."""
    fake.held = {"Ask-answer"}
    answer, other = Ask("one"), Ask("other")
    other.get()
    fake.say("Ask-answer", "Once")
    pieces = []
    steps = iter(actions)
    for piece in answer.stream(timeout_s=5):
        pieces.append(piece)
        next(steps, lambda: None)()
    return pieces


def test_a_restart_with_the_same_text_goes_unnoticed(fake: FakeParrot, program: P.Program) -> None:
    def restart() -> None:
        fake.restart("Ask-answer")
        fake.say("Ask-answer", "On")
        fake.finish("Ask-answer", "Once upon")

    assert follow(fake, restart) == ["Once", " upon"]


def test_a_restart_with_another_text_is_an_error(fake: FakeParrot, program: P.Program) -> None:
    def restart() -> None:
        fake.restart("Ask-answer")
        fake.say("Ask-answer", "Long ago")

    with pytest.raises(P.StreamRestarted):
        follow(fake, restart)


def test_after_a_restart_the_value_can_be_gotten(fake: FakeParrot, program: P.Program) -> None:
    fake.held = {"Ask-answer"}
    answer, other = Ask("one"), Ask("other")
    other.get()
    fake.say("Ask-answer", "Once")
    stream = answer.stream()
    next(stream)
    fake.restart("Ask-answer")
    fake.finish("Ask-answer", "Long ago")
    with pytest.raises(P.StreamRestarted):
        list(stream)
    assert answer.get() == "Long ago"


def test_a_stream_fails_where_the_value_does(fake: FakeParrot, program: P.Program) -> None:
    with pytest.raises(P.ValueFailed, match="engine_lost"):
        follow(fake, lambda: fake.fail("Ask-answer", "engine_lost"))


def test_a_stream_gives_up_at_its_timeout(fake: FakeParrot, program: P.Program) -> None:
    fake.held = {"Ask-answer"}
    with pytest.raises(P.WaitTimeout):
        list(Ask("one").stream(timeout_s=0.03))


def test_a_stream_survives_a_lost_connection(fake: FakeParrot, program: P.Program) -> None:
    fake.breaks = [2]
    assert "".join(Ask("one").stream()) == "<Q: one A: >"


def test_asking_for_more_urgency_does_not_repeat_text(fake: FakeParrot, program: P.Program) -> None:
    fake.held = {"Ask-answer"}
    answer, other = Ask("one"), Ask("other")
    other.get(perf=P.THROUGHPUT)
    fake.say("Ask-answer", "Once")
    answer.slot.wait_until(lambda known: known.text == "Once", Deadline(5), "the text")
    stream = answer.stream(perf=P.LATENCY)
    pieces = [next(stream)]
    fake.say("Ask-answer", " upon")
    pieces.append(next(stream))
    fake.finish("Ask-answer", "Once upon")
    assert [*pieces, *stream] == ["Once", " upon"]


async def test_a_value_can_be_streamed_in_an_event_loop(
    async_client: P.AsyncParrotClient,
) -> None:
    async with P.program(client=async_client):
        pieces = [piece async for piece in Ask("one").astream()]
    assert "".join(pieces) == "<Q: one A: >"


async def test_an_awaited_stream_gives_up_at_its_timeout(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    fake.held = {"Ask-answer"}
    async with P.program(client=async_client):
        with pytest.raises(P.WaitTimeout):
            async for _ in Ask("one").astream(timeout_s=0.03):
                pass
