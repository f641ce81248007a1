"""Scopes: which program a call belongs to, and how sessions end."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import httpx
import pytest

import parrot_integrations as P
from parrot_integrations import couriers
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.fake_replies import error_reply


@P.SemanticFunction
def Ask(question: P.SemanticVariable):
    """Q: {{input:question}} A: {{output:answer}}"""


@pytest.fixture
def configured(client: P.ParrotClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names a server: the default client of the process is ours."""
    monkeypatch.setenv("PARROT_BASE_URL", "http://parrot.test")
    monkeypatch.setattr(couriers, "_shared_client", lambda settings, pid: client)


# --- explicit scopes ----------------------------------------------------------------------------


def test_leaving_a_scope_closes_its_session(fake: FakeParrot, client: P.ParrotClient) -> None:
    with P.program(client=client):
        Ask("one").get()
    assert fake.log[-1] == "DELETE /v1/sessions/s1"


def test_a_kept_session_is_not_closed(fake: FakeParrot, client: P.ParrotClient) -> None:
    with P.program(client=client, keep=True):
        Ask("one").get()
    assert fake.count("DELETE") == 0


def test_variables_of_a_kept_program_can_be_gotten_later(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    with P.program(client=client, keep=True):
        answer = Ask("one")
    assert answer.get() == "<Q: one A: >"


def test_a_scope_without_a_get_sends_nothing(fake: FakeParrot, client: P.ParrotClient) -> None:
    with P.program(client=client):
        Ask("one")
    assert fake.log == []


def test_a_value_that_was_gotten_outlives_its_scope(client: P.ParrotClient) -> None:
    with P.program(client=client):
        answer = Ask("one")
        answer.get()
    assert answer.get() == "<Q: one A: >"


def test_a_value_that_was_not_gotten_is_gone(client: P.ParrotClient) -> None:
    with P.program(client=client):
        answer = Ask("one")
    with pytest.raises(P.ProgramError, match="program_closed"):
        answer.get()


def test_leaving_a_scope_answers_gets_in_other_threads(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.held = {"Ask-answer"}
    caught: list[BaseException] = []

    def get(answer: P.SemanticVariable) -> None:
        try:
            answer.get()
        except P.ParrotError as exc:
            caught.append(exc)

    with P.program(client=client):
        thread = threading.Thread(target=get, args=(Ask("one"),))
        thread.start()
        while not fake.sessions:
            time.sleep(0.002)
    thread.join(5)
    assert len(caught) == 1


def test_leaving_a_scope_answers_them_even_if_the_server_does_not(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.held = {"Ask-answer"}
    caught: list[P.ParrotError] = []

    def get() -> None:
        try:
            answer.get()
        except P.ProgramError as exc:
            caught.append(exc)

    with P.program(client=client):
        answer, other = Ask("one"), Ask("other")
        other.get()
        thread = threading.Thread(target=get)
        thread.start()
        time.sleep(0.02)
        fake.mishaps = [error_reply(500, "internal")]
    thread.join(5)
    assert [error.code for error in caught] == ["program_closed"]


def test_a_session_that_is_being_opened_is_closed_too(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.mishaps = [httpx.ConnectError("no route")]
    with P.program(client=client) as program:
        answer = Ask("one")
        program.want([answer.place()[1]], P.LATENCY)
    assert fake.log[-1] == "DELETE /v1/sessions/s1"


def test_a_session_that_cannot_be_closed_is_left_to_expire_with_a_warning(
    fake: FakeParrot, client: P.ParrotClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "parrot_integrations")
    with P.program(client=client):
        Ask("one").get()
        fake.mishaps = [error_reply(500, "internal")]
    assert "session s1 was left to expire" in caplog.text


def test_the_error_in_a_scope_is_not_hidden_by_closing(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    def run() -> None:
        with P.program(client=client):
            Ask("one").get()
            fake.shut_down()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()


def test_scopes_nest(fake: FakeParrot, client: P.ParrotClient) -> None:
    with P.program(client=client) as outer:
        with P.program(client=client):
            pass
        assert P.current_program() is outer


def test_a_variable_of_another_program_is_refused_in_a_scope(client: P.ParrotClient) -> None:
    with P.program(client=client):
        answer = Ask("one")
    with P.program(client=client), pytest.raises(P.ProgramError, match="foreign_variable"):
        Ask(answer)


def test_a_constant_may_be_used_in_many_programs(fake: FakeParrot, client: P.ParrotClient) -> None:
    task = P.SemanticVariable("snake")
    for _ in range(2):
        with P.program(client=client):
            Ask(task).get()
    assert [len(submit.variables) for submit in fake.submits] == [1, 1]


def test_a_scope_can_be_entered_once(client: P.ParrotClient) -> None:
    scope = P.program(client=client)
    with scope:
        pass
    with pytest.raises(P.ProgramError, match="scope_in_use"), scope:
        pass


async def test_an_awaiting_client_needs_an_async_scope(async_client: P.AsyncParrotClient) -> None:
    with pytest.raises(P.ProgramError, match="use_async"), P.program(client=async_client):
        pass


async def test_a_blocking_client_needs_a_plain_scope(client: P.ParrotClient) -> None:
    with pytest.raises(P.ProgramError, match="use_sync"):
        async with P.program(client=client):
            pass


# --- the default program ------------------------------------------------------------------------


def test_without_a_server_the_first_get_says_what_to_do() -> None:
    answer = Ask("one")
    with pytest.raises(P.NotConfigured, match="parrot serve"):
        answer.get()


def test_configuring_a_server_later_is_enough(
    client: P.ParrotClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Ask("one")
    with pytest.raises(P.NotConfigured):
        answer.get()
    monkeypatch.setenv("PARROT_BASE_URL", "http://parrot.test")
    monkeypatch.setattr(couriers, "_shared_client", lambda settings, pid: client)
    assert answer.get() == "<Q: one A: >"


def test_calls_without_a_scope_share_the_contexts_program(
    fake: FakeParrot, configured: None
) -> None:
    Ask("one").get()
    Ask("two").get()
    assert list(fake.sessions) == ["s1"]


def test_the_default_programs_session_is_left_open(fake: FakeParrot, configured: None) -> None:
    Ask("one").get()
    P.reset()
    assert fake.count("DELETE") == 0


def test_reset_begins_another_program(fake: FakeParrot, configured: None) -> None:
    Ask("one").get()
    P.reset()
    Ask("two").get()
    assert list(fake.sessions) == ["s1", "s2"]


def test_variables_stay_usable_after_a_reset(configured: None) -> None:
    answer = Ask("one")
    P.reset()
    assert answer.get() == "<Q: one A: >"


def test_each_thread_has_its_own_default_program(fake: FakeParrot, configured: None) -> None:
    threads = [threading.Thread(target=lambda: Ask("one").get()) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(fake.sessions) == 3


def test_a_call_in_another_thread_joins_the_program_of_its_argument(
    fake: FakeParrot, configured: None
) -> None:
    base = Ask("base")
    values: list[str] = []
    thread = threading.Thread(target=lambda: values.append(Ask(base).get()))
    thread.start()
    thread.join(5)
    assert (values, list(fake.sessions)) == (["<Q: <Q: base A: > A: >"], ["s1"])


def test_after_the_server_forgot_the_session_new_calls_begin_another(
    fake: FakeParrot, configured: None
) -> None:
    Ask("one").get()
    fake.sessions.clear()
    with pytest.raises(P.RequestRejected, match="unknown_session"):
        Ask("two").get()
    assert Ask("three").get() == "<Q: three A: >"


async def test_each_task_has_its_own_default_program(fake: FakeParrot, configured: None) -> None:
    async def run() -> None:
        await Ask("one").aget()

    await asyncio.gather(run(), run())
    assert len(fake.sessions) == 2
