"""Chats without a name, of several users: what one does takes nothing from another."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.server.conftest import RunningServer, StartServer, until
from tests.server.test_app_sessions import ask, session_of, view_of
from tests.server.toy_engine import ToyPlan

_SAID = "Welcome! How can I help you?"
_OPENING = ("You are the shop's assistant.", "Hi")


def greeting(**settings: Any) -> ToyPlan:
    return ToyPlan(lambda prompt: _SAID, max_model_len=2**20, **settings)


async def go_on(server: RunningServer, *texts: str, **fields: Any) -> httpx.Response:
    return await ask(server, *_OPENING, _SAID, *texts, **fields)


async def running(plan: ToyPlan, count: int) -> None:
    await until(lambda: len(plan.engine.running) == count)


async def delete(server: RunningServer, session: str) -> None:
    assert (await server.client.delete(f"/v1/sessions/{session}")).status_code == 204


async def test_one_greeting_is_gone_on_from_once(start_listening: StartServer):
    server = await start_listening(greeting())
    first = await ask(server, *_OPENING)

    alice = await go_on(server, "My card was charged twice.")
    bob = await go_on(server, "Where is my parcel?")
    again = await go_on(server, "My card was charged twice.")
    more = await go_on(server, "My card was charged twice.", _SAID, "Really.")

    assert session_of(alice) == session_of(first)
    assert len({session_of(reply) for reply in (alice, bob, again, more)}) == 4


async def test_each_branch_goes_on_by_itself(start_listening: StartServer):
    server = await start_listening(greeting())
    await ask(server, *_OPENING)
    for text in ("My card.", "My parcel."):
        first = await go_on(server, text)
        second = await go_on(server, text, _SAID, "Please.")
        third = await go_on(server, text, _SAID, "Please.", _SAID, "Now.")
        assert session_of(first) == session_of(second) == session_of(third)


async def test_who_says_and_hears_the_same_is_not_mixed_up(start_listening: StartServer):
    server = await start_listening(greeting())
    openings = [session_of(await ask(server, *_OPENING)) for _ in "ab"]

    second = [session_of(await go_on(server, text)) for text in ("A.", "B.")]
    third = [session_of(await go_on(server, text, _SAID, "And?")) for text in ("A.", "B.")]

    assert len({*openings, *second}) == 4
    assert third == second


async def test_a_session_that_has_ended_does_not_make_another_ones_certain(
    start_listening: StartServer,
):
    server = await start_listening(greeting())
    openings = [session_of(await ask(server, *_OPENING)) for _ in "ab"]
    await delete(server, openings[1])

    assert session_of(await go_on(server, "B.")) not in openings


async def test_what_was_refused_can_be_said_again(start_listening: StartServer):
    server = await start_listening(greeting())
    first = session_of(await ask(server, *_OPENING))
    messages = [{"role": "system", "content": _OPENING[0]}, {"role": "user", "content": "Hi"}]
    messages += [{"role": "assistant", "content": _SAID}, {"role": "user", "content": "A."}]
    body = {"model": "nope", "messages": messages}
    refused = await server.client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 404

    assert session_of(await go_on(server, "A.")) == first


async def test_who_names_a_session_has_it_for_himself(start_listening: StartServer):
    server = await start_listening(greeting())
    first = session_of(await ask(server, *_OPENING))
    named = await ask(server, "Be brief.", "What is new?", session=first)
    assert session_of(named) == first

    assert session_of(await go_on(server, "A.")) != first


@pytest.mark.parametrize("stream", [False, True])
async def test_to_delete_a_shared_session_takes_no_reply_away(
    start_listening: StartServer, stream: bool
):
    plan = greeting()
    server = await start_listening(plan)
    alice = session_of(await ask(server, *_OPENING))
    plan.is_held = True
    waiting = asyncio.create_task(go_on(server, "Where is my parcel?", stream=stream))
    await running(plan, 1)

    await delete(server, alice)
    await delete(server, alice)
    assert (await server.client.post(f"/v1/sessions/{alice}/cancel")).status_code == 204
    assert (await view_of(server, alice))["state"] == "closed"
    plan.engine.say("On its way.")
    plan.engine.finish("On its way.")

    reply = await waiting
    assert session_of(reply) == alice
    assert "On its way." in reply.text
    await until(lambda: len(server.service.coordinator.sessions) == 0)
    gone = await server.client.get(f"/v1/sessions/{alice}")
    assert gone.status_code == 404
    assert len(server.service.open_sessions) == 0


async def test_a_shared_session_that_is_deleted_takes_nothing_more(start_listening: StartServer):
    plan = greeting()
    server = await start_listening(plan)
    alice = session_of(await ask(server, *_OPENING))
    plan.is_held = True
    waiting = asyncio.create_task(go_on(server, "A."))
    await running(plan, 1)
    await delete(server, alice)
    plan.is_held = False

    by_id = await ask(server, "Be brief.", "What is new?", session=alice)

    assert session_of(by_id) != alice
    plan.engine.finish("Done.")
    assert session_of(await waiting) == alice


async def test_who_leaves_a_shared_session_takes_his_own_call_with_him(
    start_listening: StartServer,
):
    plan = greeting()
    server = await start_listening(plan)
    await ask(server, *_OPENING)
    plan.is_held = True
    waiting = asyncio.create_task(go_on(server, "A."))
    await running(plan, 1)

    waiting.cancel()

    await running(plan, 0)


@pytest.mark.parametrize("named", [False, True])
async def test_a_session_of_ones_own_ends_at_once(start_listening: StartServer, named: bool):
    plan = greeting(is_held=True)
    server = await start_listening(plan)
    name = "run" if named else None
    messages = [{"role": "user", "content": "Hi"}]
    headers = {} if name is None else {"x-parrot-session": name}
    waiting = asyncio.create_task(
        server.client.post("/v1/chat/completions", json={"messages": messages}, headers=headers)
    )
    await running(plan, 1)
    (session,) = [session.id for session in server.service.coordinator.sessions]

    await delete(server, session)

    assert (await waiting).status_code == 503
    assert len(server.service.open_sessions) == 0


async def test_an_idle_session_makes_room_however_many_are_at_work(start_listening: StartServer):
    plan = greeting(is_held=True, max_requests=512)
    server = await start_listening(plan, max_sessions=80)
    at_work = [
        asyncio.create_task(ask(server, "Be brief.", "Hi", session=f"w{number}", max_tokens=1))
        for number in range(70)
    ]
    await running(plan, 70)
    plan.is_held = False

    idle = [await ask(server, "Be brief.", "Hi", session=f"i{number}") for number in range(15)]

    assert {reply.status_code for reply in idle} == {200}
    for task in at_work:
        task.cancel()
    await asyncio.gather(*at_work, return_exceptions=True)


@pytest.mark.parametrize("field", ["user", "session_id"])
async def test_an_empty_name_is_none(start_listening: StartServer, field: str):
    server = await start_listening()
    sessions = {session_of(await ask(server, "Be.", text, **{field: ""})) for text in "ab"}
    assert len(sessions) == 2
