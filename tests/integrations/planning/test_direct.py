"""Calls that are sent by themselves, one and several at once."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import pytest

import parrot_integrations as P
from parrot_backend.protocol import SubmitRequest, VariableView
from parrot_integrations.planning import submits
from parrot_integrations.planning.calls import CallOptions, ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.context import current_plan, in_force
from parrot_integrations.planning.direct import DirectReply, aresults, replies_to, results
from parrot_integrations.planning.reply import Direct, Reply, ReplyEvent, ReplyText
from parrot_integrations.planning.submits import Terms
from parrot_integrations.settings import ClientSettings
from tests.helpers.fake_graph import failure
from tests.helpers.fake_parrot import Answers, FakeParrot
from tests.helpers.fake_replies import error_reply

TERMS = Terms(app="app", metadata={"step": "a"}, criteria=P.THROUGHPUT, stage="draft")


def call(prompt: str) -> ModelCall:
    return ModelCall(CallOptions(), prompt=prompt)


def texts(events: list[ReplyEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, ReplyText)]


def values(outcomes: list[submits.Outcome]) -> list[object]:
    return [o.value if isinstance(o, VariableView) else o.code for o in outcomes]


async def settle(reply: Reply, how: str) -> str | None:
    """Read a reply in one of its four ways."""
    if how == "result":
        return reply.result().value
    if how == "aresult":
        return (await reply.aresult()).value
    last = list(reply.events())[-1] if how == "events" else [e async for e in reply.aevents()][-1]
    assert isinstance(last, VariableView)
    return last.value


HOWS = pytest.mark.parametrize("how", ["result", "aresult", "events", "aevents"])


def test_a_text_that_is_no_unicode_is_refused_alone(
    connection: Connection, fake: FakeParrot
) -> None:
    outcomes = results(replies_to([call("a"), call("\ud800"), call("b")], connection, TERMS))
    assert values(outcomes) == ["<a>", "invalid_text", "<b>"]


@HOWS
async def test_a_call_is_one_submit(connection: Connection, fake: FakeParrot, how: str) -> None:
    assert await settle(DirectReply(call("a"), connection, TERMS), how) == "<a>"
    (submit,) = fake.submits
    assert (submit.app, submit.metadata, fake.stages) == ("app", {"step": "a"}, ["draft"])
    assert submit.outputs[0].criteria == P.THROUGHPUT
    assert (submit.close, submit.on_disconnect) == (True, "cancel")
    assert fake.log == ["POST /v1/submit"]


@HOWS
async def test_a_failure_is_raised(connection: Connection, fake: FakeParrot, how: str) -> None:
    def generate(_: str) -> str:
        raise ValueError("engine_lost")

    fake.generate = generate
    with pytest.raises(P.ValueFailed, match="engine_lost"):
        await settle(DirectReply(call("a"), connection), how)


@HOWS
async def test_a_refusal_is_raised(connection: Connection, fake: FakeParrot, how: str) -> None:
    fake.mishaps = [error_reply(422, "unknown_model")]
    with pytest.raises(P.RequestRejected, match="unknown_model"):
        await settle(DirectReply(call("a"), connection), how)


@HOWS
async def test_a_lost_connection_is_tried_again(
    connection: Connection, fake: FakeParrot, how: str
) -> None:
    fake.mishaps = [httpx.ConnectError("no"), error_reply(429, "saturated")]
    assert await settle(DirectReply(call("a"), connection), how) == "<a>"
    fake.mishaps = [httpx.ConnectError("no")] * 3
    with pytest.raises(P.ConnectionFailed):
        await settle(DirectReply(call("a"), connection), how)


@HOWS
async def test_work_that_was_cancelled_with_its_connection_is_sent_once_more(
    connection: Connection, fake: FakeParrot, how: str
) -> None:
    fake.held.add("reply-0")

    def lose() -> None:
        while not fake.submits:
            time.sleep(0.001)
        fake.held.clear()
        fake.sessions["s1"].fail("reply-0", "cancelled", failure("cancelled", "reply-0"))

    thread = threading.Thread(target=lose)
    thread.start()
    assert await settle(DirectReply(call("a"), connection), how) == "<a>"
    thread.join()
    assert len(fake.submits) == 2


@pytest.mark.parametrize("how", ["result", "aresult"])
async def test_a_call_that_takes_too_long_is_cancelled(
    connection: Connection, fake: FakeParrot, how: str
) -> None:
    fake.held.add("reply-0")
    with pytest.raises(P.WaitTimeout, match=r"no reply within 0\.02 s; the call was given up"):
        await settle(DirectReply(call("a"), connection, Terms(timeout_s=0.02)), how)
    assert fake.count("POST /v1/sessions/s1/cancel") == 1


@pytest.mark.parametrize("how", ["events", "aevents"])
async def test_a_stream_that_takes_too_long_is_cancelled(
    connection: Connection, fake: FakeParrot, how: str
) -> None:
    fake.held.add("reply-0")
    fake.max_stream_ticks = 2
    with pytest.raises(P.WaitTimeout, match="given up"):
        await settle(DirectReply(call("a"), connection, Terms(timeout_s=9)), how)
    assert fake.count("POST /v1/sessions/s1/cancel") == 1


def test_a_stream_that_breaks_goes_on(connection: Connection, fake: FakeParrot) -> None:
    fake.breaks = [2]
    events = list(DirectReply(call("a b c d"), connection).events())
    assert texts(events) == ["<a", " b", " c", " d>"]
    assert isinstance(events[-1], VariableView)


def test_a_restart_with_the_same_text_is_not_noticed(
    connection: Connection, fake: FakeParrot
) -> None:
    fake.held.add("reply-0")
    events = DirectReply(call("a"), connection).events()
    say_and_restart(fake, "one two")
    assert next(events) == ReplyText("one two")
    for text in ("one", " tw", "o three"):
        fake.say("reply-0", text)
    fake.finish("reply-0", "one two three four")
    assert texts(list(events)) == [" three", " four"]


def test_a_restart_with_another_text_is_an_error(connection: Connection, fake: FakeParrot) -> None:
    fake.held.add("reply-0")
    events = DirectReply(call("a"), connection).events()
    say_and_restart(fake, "one two")
    assert next(events) == ReplyText("one two")
    fake.say("reply-0", "three")
    with pytest.raises(P.StreamRestarted):
        list(events)


def say_and_restart(fake: FakeParrot, text: str) -> None:
    """Say something and lose it, when the submit has arrived."""

    def act() -> None:
        while not fake.submits:
            time.sleep(0.001)
        fake.say("reply-0", text)
        fake.restart("reply-0")

    threading.Thread(target=act).start()


# --- several calls --------------------------------------------------------------------------------


def test_several_calls_are_one_submit_and_one_failure_is_one_failure(
    connection: Connection, fake: FakeParrot
) -> None:
    def generate(prompt: str) -> str:
        if prompt == "bad":
            raise ValueError("prompt_too_long")
        return prompt

    fake.generate = generate
    found = results(replies_to([call("a"), call("bad"), call("b")], connection, TERMS))
    assert values(found) == ["a", "prompt_too_long", "b"]
    assert len(fake.submits) == 1


async def test_several_calls_awaited(connection: Connection, fake: FakeParrot) -> None:
    found = await aresults(replies_to([call("a"), call("b")], connection, TERMS))
    assert values(found) == ["<a>", "<b>"]
    assert len(fake.submits) == 1


@pytest.mark.parametrize("is_async", [False, True])
async def test_many_calls_are_several_submits_in_flight(
    connection: Connection, fake: FakeParrot, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    monkeypatch.setattr(submits, "MAX_CALLS", 10)
    fake.held.add("reply-0")
    replies = replies_to([call(str(i)) for i in range(95)], connection, TERMS)

    def finish() -> None:
        # Eight are in flight before the first one ends.
        while len(fake.submits) < 8:
            time.sleep(0.001)
        fake.held.clear()
        for session in list(fake.sessions.values()):
            if not session.variables["reply-0"].is_settled:
                session.settle("reply-0", value="late")

    thread = threading.Thread(target=finish)
    thread.start()
    found = await aresults(replies) if is_async else await asyncio.to_thread(results, replies)
    thread.join()
    assert [v for i, v in enumerate(values(found)) if i % 10] == [
        f"<{i}>" for i in range(95) if i % 10
    ]
    assert len(fake.submits) == 10


def test_submits_are_bounded_in_bytes(
    connection: Connection, fake: FakeParrot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submits, "MAX_BYTES", 3_000)
    found = results(replies_to([call("x" * 1_000) for _ in range(4)], connection, TERMS))
    assert len(found) == 4
    assert [len(submit.nodes) for submit in fake.submits] == [2, 2]


class Refusing(FakeParrot):
    """Refuses submits with a bad prompt as a whole, as the real server does."""

    def _submit(self, body: SubmitRequest) -> Answers:
        if any("bad" in str(node) for node in body.nodes):
            return iter([error_reply(422, "empty_prompt")])
        return super()._submit(body)


@pytest.mark.parametrize("bad", [{3}, {0, 9}, set(range(10))])
async def test_a_call_that_is_refused_does_not_take_others_with_it(bad: set[int]) -> None:
    fake = Refusing()
    prompts = ["bad" if i in bad else str(i) for i in range(10)]
    with P.ParrotClient("http://x", transport=httpx.MockTransport(fake.handle)) as client:
        connection = Connection(client.settings, client)
        found = results(replies_to([call(p) for p in prompts], connection, TERMS))
    wanted = ["empty_prompt" if i in bad else f"<{i}>" for i in range(10)]
    assert values(found) == wanted


async def test_a_cancelled_reader_gives_the_group_up(
    connection: Connection, fake: FakeParrot
) -> None:
    fake.held.add("reply-0")
    task = asyncio.create_task(aresults(replies_to([call("a"), call("b")], connection, TERMS)))
    while not fake.submits:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


# --- the plan in force ----------------------------------------------------------------------------


class OnePlan:
    def __init__(self, reply: Reply) -> None:
        self.asked: list[tuple[ModelCall, ClientSettings]] = []
        self._reply = reply

    def claim(self, call: ModelCall, *, endpoint: ClientSettings, direct: Direct) -> Reply | None:
        self.asked.append((call, endpoint))
        return self._reply if call.prompt == "planned" else None


def test_a_plan_is_asked_first(connection: Connection, fake: FakeParrot) -> None:
    planned = DirectReply(call("from the plan"), connection)
    plan = OnePlan(planned)
    with in_force(plan):
        replies = replies_to([call("a"), call("planned"), call("b")], connection, TERMS)
    assert current_plan.get() is None
    assert replies[1] is planned
    assert values(results(replies)) == ["<a>", "<from the plan>", "<b>"]
    assert [asked.prompt for asked, _ in plan.asked] == ["a", "planned", "b"]
    assert {endpoint.base_url for _, endpoint in plan.asked} == {"http://parrot.test"}
