"""The HTTP clients: requests, replies, errors, retries, resumption."""

from __future__ import annotations

import logging
import pickle
import time

import httpx
import pytest
import stamina

import parrot_integrations as P
from parrot_backend.protocol import (
    CallNode,
    OutputSegment,
    SubmitRequest,
    TextSegment,
    VariableDeclaration,
    WantedOutput,
)
from parrot_integrations.settings import resolve_settings
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.fake_replies import error_reply

URL = "http://parrot.test"
REQUEST = SubmitRequest(
    nodes=(CallNode(name="f", prompt=(TextSegment(text="Say: "), OutputSegment(variable="y"))),),
    outputs=(WantedOutput(variable="y"),),
)


def answering(*replies: httpx.Response) -> P.ParrotClient:
    """Return a client whose requests get these replies, in order."""
    queue = list(replies)
    return P.ParrotClient(URL, transport=httpx.MockTransport(lambda request: queue.pop(0)))


# --- settings -----------------------------------------------------------------------------------


def test_without_an_address_the_error_says_how_to_get_a_server() -> None:
    with pytest.raises(P.NotConfigured, match=r"parrot serve.*PARROT_BASE_URL"):
        P.ParrotClient()


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(P.NotConfigured, match="invalid_base_url"):
        P.ParrotClient("localhost:8000")


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", URL)
    monkeypatch.setenv("PARROT_API_KEY", "sk-secret")
    assert resolve_settings() == P.ClientSettings(URL, "sk-secret")


def test_the_key_is_sent_as_a_bearer_token(fake: FakeParrot) -> None:
    with P.ParrotClient(URL, "sk-secret", transport=httpx.MockTransport(fake.handle)) as client:
        client.submit(REQUEST)
    assert fake.headers["Authorization"] == "Bearer sk-secret"


def test_the_key_is_never_shown() -> None:
    client = P.ParrotClient(URL, "sk-secret")
    assert "sk-secret" not in f"{client!r} {P.ClientSettings(URL, 'sk-secret')!r}"
    client.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@host:1/a@b", "http://host:1/a@b"),
        ("https://secret@host", "https://host"),
        ("http://[::1]:80/p?token=secret@x#secret", "http://[::1]:80/p"),
        ("http://host?next=http://user:secret@x", "http://host"),
        ("http://host#secret", "http://host"),
        (URL, URL),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, shown: str) -> None:
    settings = P.ClientSettings(url, "sk-secret", max_attempts=3)
    assert settings.public_url == shown
    assert repr(settings) == (
        f"ClientSettings(base_url={shown!r}, connect_timeout_s=5.0, read_timeout_s=60.0, "
        "max_attempts=3, retry_timeout_s=45.0)"
    )
    with P.ParrotClient(settings=settings) as client:
        assert repr(client) == f"ParrotClient({shown!r})"


@pytest.mark.parametrize("url", ["ftp://user:secret@host", "user:secret@host"])
def test_a_wrong_address_is_told_without_secrets(url: str) -> None:
    with pytest.raises(P.NotConfigured, match="host") as caught:
        P.ParrotClient(url)
    assert "secret" not in str(caught.value)


def test_a_text_that_is_no_unicode_is_refused(fake: FakeParrot) -> None:
    node = CallNode(name="f", prompt=(TextSegment(text="\ud800"), OutputSegment(variable="y")))
    with (
        P.ParrotClient(URL, transport=httpx.MockTransport(fake.handle)) as client,
        pytest.raises(P.RequestRejected, match="lone surrogate") as caught,
    ):
        client.submit(REQUEST.model_copy(update={"nodes": (node,)}))
    assert caught.value.code == "invalid_text"
    assert not fake.submits


def test_neither_key_nor_prompts_are_logged(
    fake: FakeParrot, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.mishaps = [httpx.ConnectError("no route")]
    with P.ParrotClient(URL, "sk-secret", transport=httpx.MockTransport(fake.handle)) as client:
        client.submit(REQUEST)
    told = "".join(str(vars(record)) for record in caplog.records)
    assert [secret for secret in ("sk-secret", "Say: ") if secret in told] == []


# --- requests -----------------------------------------------------------------------------------


def test_a_submit_returns_the_wanted_values(client: P.ParrotClient) -> None:
    assert client.submit(REQUEST).variables["y"].value == "<Say: >"


def test_a_submit_gets_an_idempotency_key(fake: FakeParrot, client: P.ParrotClient) -> None:
    client.submit(REQUEST)
    assert fake.keys[0]


def test_a_key_of_the_caller_is_kept(fake: FakeParrot, client: P.ParrotClient) -> None:
    client.submit(REQUEST.model_copy(update={"idempotency_key": "mine"}))
    assert fake.keys == ["mine"]


def test_get_variable_waits_in_several_polls(fake: FakeParrot, client: P.ParrotClient) -> None:
    views = [{"id": "s.y", "name": "y", "state": s, "value": "v"} for s in ("empty", "ready")]
    fake.mishaps = [httpx.Response(200, json=view) for view in views]
    assert client.get_variable("s.y").value == "v"


def test_only_the_first_poll_states_the_criteria() -> None:
    queries = []

    def reply(request: httpx.Request) -> httpx.Response:
        queries.append(dict(request.url.params))
        state = "ready" if len(queries) == 2 else "empty"
        return httpx.Response(200, json={"id": "s.y", "name": "y", "state": state, "value": "v"})

    client = P.ParrotClient(URL, transport=httpx.MockTransport(reply))
    client.get_variable("s.y", criteria=P.THROUGHPUT)
    assert queries == [
        {"criteria": "throughput", "wait": "true", "timeout_s": "30.0"},
        {"wait": "true", "timeout_s": "30.0"},
    ]


def test_get_variable_gives_up_at_its_timeout(fake: FakeParrot, client: P.ParrotClient) -> None:
    fake.held = {"y"}
    client.submit(REQUEST.model_copy(update={"wait": False}))
    with pytest.raises(P.WaitTimeout):
        client.get_variable("s1.y", timeout_s=0.02)


def test_get_variable_without_waiting_returns_the_state(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.held = {"y"}
    client.submit(REQUEST.model_copy(update={"wait": False}))
    assert client.get_variable("s1.y", wait=False).state == "empty"


def test_criteria_are_sent_as_query_parameters(fake: FakeParrot, client: P.ParrotClient) -> None:
    client.submit(REQUEST)
    client.get_variable("s1.y", wait=False, criteria=P.Criteria(deadline_s=2.5))
    assert fake.queries == [{"criteria": "unstated", "deadline_s": "2.5"}]


def test_a_variable_can_be_set(fake: FakeParrot, client: P.ParrotClient) -> None:
    body = SubmitRequest(variables=(VariableDeclaration(name="x"),))
    client.submit(body)
    client.set_variable("s1.x", "v")
    assert client.get_variable("s1.x").value == "v"


def test_a_session_can_be_read() -> None:
    view = {
        "id": "s1",
        "app": "",
        "metadata": {},
        "state": "open",
        "age_s": 1,
        "variables": [],
        "nodes": [],
    }
    assert answering(httpx.Response(200, json=view)).get_session("s1").state == "open"


def test_a_timeline_is_returned_as_it_is() -> None:
    client = answering(httpx.Response(200, json={"traceEvents": []}))
    assert client.get_timeline("s1") == {"traceEvents": []}


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (error_reply(404, "unknown_session"), P.RequestRejected, "unknown_session"),
        (error_reply(422, "cycle_in_graph"), P.RequestRejected, "cycle_in_graph"),
        (error_reply(401, "unauthorized"), P.RequestRejected, "unauthorized"),
        (error_reply(429, "saturated", {"Retry-After": "99"}), P.Saturated, "saturated"),
        (error_reply(503, "no_engine", {"Retry-After": "99"}), P.Saturated, "no_engine"),
        (error_reply(500, "internal"), P.ServerFailed, "internal"),
        (httpx.Response(502, text="<html>bad gateway"), P.ServerFailed, "http_502"),
        (httpx.Response(302, headers={"Location": "/"}), P.ServerFailed, "http_302"),
        (httpx.Response(200, text="<html>welcome"), P.ServerFailed, "bad_reply"),
    ],
)
def test_replies_become_errors_by_what_the_caller_can_do(
    reply: httpx.Response, kind: type[P.ParrotError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        answering(reply).get_session("s1")
    assert caught.value.code == code


def test_an_error_carries_the_servers_context() -> None:
    with pytest.raises(P.RequestRejected) as caught:
        answering(error_reply(404, "unknown_session")).get_session("s1")
    assert caught.value.context == {"limit": 1}


@pytest.mark.parametrize(
    "error",
    [
        P.ParrotError("c", "m", {"n": 1}),
        P.Saturated("c", "m", None, 2.0),
        P.ConnectionFailed("c", "m", None, False),
        P.ValueFailed("c", "m", "a", ("a", "b")),
    ],
)
def test_errors_survive_pickling(error: P.ParrotError) -> None:
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


# --- retries ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mishap",
    [
        pytest.param(httpx.ConnectError("no route"), id="no connection"),
        pytest.param(httpx.ReadTimeout("silence"), id="no reply"),
        pytest.param(error_reply(503, "no_engine", {"Retry-After": "1"}), id="503"),
        pytest.param(error_reply(429, "saturated"), id="429"),
    ],
)
def test_a_submit_is_repeated_after(
    mishap: httpx.Response | Exception, fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.mishaps = [mishap]
    assert client.submit(REQUEST).variables["y"].value == "<Say: >"


def test_a_submit_whose_reply_was_lost_is_carried_out_once(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.lost_replies = 1
    client.submit(REQUEST)
    assert (len(fake.keys), len(set(fake.keys)), len(fake.submits)) == (2, 1, 1)


def test_retries_end(fake: FakeParrot, client: P.ParrotClient) -> None:
    fake.mishaps = [httpx.ConnectError("no route")] * 9
    with pytest.raises(P.ConnectionFailed, match=r"no connection to http://parrot\.test: no route"):
        client.submit(REQUEST)
    assert fake.count("POST") == 5


def test_who_cannot_be_reached_is_named_without_credentials(fake: FakeParrot) -> None:
    fake.mishaps = [httpx.ConnectError("no route")] * 9
    with (
        P.ParrotClient(
            "http://me:secret@parrot.test:81/path", transport=httpx.MockTransport(fake.handle)
        ) as client,
        pytest.raises(P.ConnectionFailed) as caught,
    ):
        client.submit(REQUEST)
    assert caught.value.context == {"server": "http://parrot.test:81"}
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500, 502])
def test_other_errors_are_not_repeated(
    status: int, fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.mishaps = [error_reply(status, "no")]
    with pytest.raises(P.ParrotError):
        client.submit(REQUEST)
    assert fake.count("POST") == 1


def test_a_server_that_wants_to_be_left_alone_for_long_is_not_asked_again(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.mishaps = [error_reply(503, "no_engine", {"Retry-After": "600"})]
    with pytest.raises(P.Saturated) as caught:
        client.submit(REQUEST)
    assert caught.value.retry_after_s == 600


def test_the_servers_retry_after_is_honoured(fake: FakeParrot, client: P.ParrotClient) -> None:
    fake.mishaps = [error_reply(503, "no_engine", {"Retry-After": "0.2"})]
    with stamina.set_testing(False):
        begin_s = time.monotonic()
        client.submit(REQUEST)
    assert time.monotonic() - begin_s >= 0.2


def test_a_set_is_not_repeated_when_it_may_have_arrived(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.mishaps = [httpx.ReadTimeout("silence")]
    with pytest.raises(P.ConnectionFailed):
        client.set_variable("s1.x", "v")
    assert fake.count("PUT") == 1


def test_a_set_is_repeated_when_it_cannot_have_arrived(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    client.submit(SubmitRequest(variables=(VariableDeclaration(name="x"),)))
    fake.mishaps = [httpx.ConnectError("no route")]
    client.set_variable("s1.x", "v")
    assert fake.count("PUT") == 2


# --- the awaiting client ------------------------------------------------------------------------


async def test_awaiting_a_submit(async_client: P.AsyncParrotClient) -> None:
    assert (await async_client.submit(REQUEST)).variables["y"].value == "<Say: >"


async def test_awaiting_a_variable(fake: FakeParrot, async_client: P.AsyncParrotClient) -> None:
    fake.held = {"y"}
    await async_client.submit(REQUEST.model_copy(update={"wait": False}))
    with pytest.raises(P.WaitTimeout):
        await async_client.get_variable("s1.y", timeout_s=0.02)


async def test_an_awaited_submit_is_repeated(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    fake.lost_replies = 2
    await async_client.submit(REQUEST)
    assert (len(fake.keys), len(set(fake.keys)), len(fake.submits)) == (3, 1, 1)


async def test_setting_cancelling_and_closing_are_awaited(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    await async_client.submit(SubmitRequest(variables=(VariableDeclaration(name="x"),)))
    await async_client.set_variable("s1.x", "v")
    await async_client.cancel("s1", ("x",))
    await async_client.close_session("s1")
    assert fake.log[1:] == [
        "PUT /v1/variables/s1.x",
        "POST /v1/sessions/s1/cancel",
        "DELETE /v1/sessions/s1",
    ]
