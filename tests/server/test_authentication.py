"""Who is let in: keys on all endpoints, one answer for all that is wrong, no key in any text."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import openai
import pytest
import typer
from starlette.routing import Route
from typer.testing import CliRunner

from parrot_backend.cli import app
from parrot_backend.server.api_keys import add_key, revoke_keys
from parrot_backend.server.authentication import OPEN_PATHS
from parrot_backend.server.exposure import exposure_problem, is_loopback
from parrot_integrations.client import ParrotClient
from parrot_integrations.errors import RequestRejected
from tests.helpers.scripted_server import scripted_server
from tests.server.conftest import StartServer
from tests.server.programs import one_call
from tests.server.tenants import serve_tenants

NATIVE = {
    "error": {
        "code": "invalid_api_key",
        "message": "send a key of this server: Authorization: Bearer KEY",
        "context": {},
    }
}
OPENAI = {
    "error": {
        "code": "invalid_api_key",
        "message": "send a key of this server: Authorization: Bearer KEY",
        "type": "invalid_request_error",
        "param": None,
    }
}


def forms_of_nobody(key: str, revoked: str) -> list[list[tuple[str, str]]]:
    """Return the headers of requests that no key stands behind."""
    values = ["", "Bearer", "Bearer ", f"Basic {key}", key, f"Bearer {key}x", f"Bearer {key[:-1]}"]
    values += [f"Bearer {revoked}", "Bearer none", f"Bearer {key} {key}", "Bearer parrot__"]
    values += ["Bearer parrot_000000000000_" + "x" * 43, "Bearer \xe9"]
    wrong = [[("authorization", value)] for value in values]
    return [[], *wrong, [("authorization", f"Bearer {key}")] * 2]


async def test_every_endpoint_but_the_open_ones_wants_a_key(start: StartServer, tmp_path: Path):
    tenants = await serve_tenants(start, tmp_path)
    revoked = add_key(tenants.path, "carol")
    revoke_keys(tenants.path, "carol")
    routes = [
        (method, re.sub(r"\{[^}]+\}", "x", route.path))
        for route in tenants.server.app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    ]
    assert len(routes) > 15
    asked = [r for r in routes if r[1] not in OPEN_PATHS]
    assert len(routes) - len(asked) == len(OPEN_PATHS) == 3
    num_asked = 0
    for method, path in [*asked, ("GET", "/nowhere"), ("GET", "/health/"), ("POST", "/v1//submit")]:
        is_openai = path.startswith(("/v1/chat", "/v1/completions", "/v1/models", "/v1/responses"))
        for headers in forms_of_nobody(tenants.keys["alice"], revoked):
            request = tenants.server.client.build_request(
                method, path, headers=[(n.encode(), v.encode("latin-1")) for n, v in headers]
            )
            reply = await tenants.server.client.send(request)
            assert reply.status_code == 401, (method, path, headers)
            assert reply.json() == (OPENAI if is_openai else NATIVE)
            assert reply.headers["WWW-Authenticate"] == "Bearer"
            num_asked += 1
    metrics = (await tenants.server.client.get("/metrics")).text
    assert f'parrot_errors_total{{code="invalid_api_key"}} {float(num_asked)}' in metrics


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_a_key_lets_in(start: StartServer, tmp_path: Path, scheme: str):
    tenants = await serve_tenants(start, tmp_path)
    headers = {"Authorization": f"{scheme} {tenants.keys['alice']}"}
    for path in ("/v1/engines", "/v1/models", "/openapi.json"):
        assert (await tenants.server.client.get(path, headers=headers)).status_code == 200
    for path in OPEN_PATHS:
        assert (await tenants.server.client.get(path)).status_code == 200


async def test_without_a_file_of_keys_any_header_will_do(start: StartServer):
    server = await start()
    for headers in ({}, {"Authorization": "Bearer none"}):
        reply = await server.client.post("/v1/submit", json=one_call(), headers=headers)
        assert reply.status_code == 200


async def test_a_key_that_is_revoked_ends_at_the_next_request(start: StartServer, tmp_path: Path):
    tenants = await serve_tenants(start, tmp_path)
    session = (await tenants.submit("alice", **one_call()))["session_id"]
    revoke_keys(tenants.path, "alice")
    assert (await tenants.ask("alice", "GET", f"/v1/sessions/{session}")).status_code == 401
    tenants.keys["alice"] = add_key(tenants.path, "alice")
    assert (await tenants.ask("alice", "GET", f"/v1/sessions/{session}")).status_code == 200


async def test_a_long_body_without_a_key_is_answered(start_listening: StartServer, tmp_path: Path):
    tenants = await serve_tenants(start_listening, tmp_path, max_body_bytes=100)
    client = tenants.server.client
    for _ in range(2):
        reply = await client.post("/v1/submit", content=b"x" * 2**22)
        assert (reply.status_code, reply.json()) == (401, NATIVE)


async def test_no_key_stands_in_any_text(
    start: StartServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    record = tmp_path / "run.jsonl"
    tenants = await serve_tenants(start, tmp_path, record=record)
    secret = tenants.keys["alice"].split("_", 2)[2]
    replies = [
        await tenants.ask("alice", "POST", "/v1/submit", json=body)
        for body in (one_call(), {"nodes": 7}, one_call("x" * 500), one_call(app=5))
    ]
    wrong = {"Authorization": f"Bearer {tenants.keys['alice']}-"}
    replies.append(await tenants.server.client.post("/v1/submit", headers=wrong, json={}))
    replies.append(await tenants.ask("alice", "GET", "/metrics"))
    texts = [reply.text for reply in replies] + [caplog.text, repr(tenants.server.service.settings)]
    await tenants.server.service.stop()  # writes what is buffered
    assert [reply.status_code for reply in replies] == [200, 422, 200, 422, 401, 200]
    assert not [text for text in (*texts, record.read_text()) if secret in text]
    assert '"alice"' in record.read_text()


def test_the_sdk_and_our_client_take_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "keys.json"
    key = add_key(path, "alice")
    with scripted_server(api_keys=path) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
            said = client.chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": "Hi"}], max_tokens=5
            )
            text = "".join(
                chunk.choices[0].delta.content or ""
                for chunk in client.chat.completions.create(
                    model="scripted",
                    messages=[{"role": "user", "content": "Hi"}],
                    max_tokens=5,
                    stream=True,
                )
            )
        assert said.choices[0].message.content == text
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError) as refused,
        ):
            client.models.list()
        with ParrotClient(server.url, key) as parrot, pytest.raises(RequestRejected) as unknown:
            parrot.get_session("0" * 32)
        with ParrotClient(server.url) as parrot, pytest.raises(RequestRejected) as nobody:
            parrot.get_session("0" * 32)
        monkeypatch.setenv("PARROT_API_KEY", key)
        with ParrotClient(server.url) as parrot, pytest.raises(RequestRejected) as known:
            parrot.get_session("0" * 32)
    assert (refused.value.status_code, refused.value.code) == (401, "invalid_api_key")
    assert (unknown.value.code, known.value.code) == ("unknown_session", "unknown_session")
    assert nobody.value.code == "invalid_api_key"


# --- who can reach the server at all -----------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False)),
        *(("127.0.0.1.example.org", False), ("localhost.example.org", False), ("host", False)),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, expected: bool):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "has_keys", "no_auth", "is_problem"),
    [
        ("127.0.0.1", False, False, False),
        ("127.0.0.1", True, False, False),
        ("127.0.0.1", False, True, False),
        ("127.0.0.1", True, True, True),
        ("0.0.0.0", False, False, True),
        ("0.0.0.0", True, False, False),
        ("0.0.0.0", False, True, False),
        ("0.0.0.0", True, True, True),
    ],
)
def test_where_a_server_may_listen(host: str, has_keys: bool, no_auth: bool, is_problem: bool):
    problem = exposure_problem(host, has_keys=has_keys, no_auth=no_auth)
    assert (problem is not None) is is_problem


SERVE = ("serve", "--engine", "scripted", "--port", "0")


@pytest.mark.parametrize(
    ("arguments", "content", "said"),
    [
        (("--host", "0.0.0.0"), None, "other machines reach 0.0.0.0, and there are no keys"),
        (("--api-keys", "FILE", "--no-auth"), None, "nobody needs a key, and api_keys has some"),
        (("--api-keys", "FILE"), None, "cannot read keys from FILE: No such file"),
        (("--api-keys", "FILE"), "{}", "FILE is not a file of keys"),
    ],
)
def test_what_keeps_a_server_from_starting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    content: str | None,
    said: str,
):
    monkeypatch.setattr("parrot_backend.server.main.configure_logging", lambda level: None)
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
    given = [one.replace("FILE", str(path)) for one in arguments]
    result = CliRunner().invoke(app, [*SERVE, *given])
    assert result.exit_code == 2
    assert said.replace("FILE", str(path)) in result.stderr


@pytest.mark.parametrize(
    ("more", "said"), [(("--api-keys", "FILE"), "without TLS"), (("--no-auth",), "without auth")]
)
def test_an_address_that_others_reach_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], said: str
):
    async def stop_at_once(*_: object) -> None:
        await asyncio.sleep(0)

    add_key(tmp_path / "keys.json", "alice")
    monkeypatch.setattr("parrot_backend.server.process._run", stop_at_once)
    monkeypatch.setattr("parrot_backend.server.main.configure_logging", lambda level: None)
    # The command is all there is to see; nothing outside is listened to.
    monkeypatch.setattr("parrot_backend.server.process._bind", lambda *_: _NoSocket())
    given = [one.replace("FILE", str(tmp_path / "keys.json")) for one in more]
    result = CliRunner().invoke(app, [*SERVE, "--host", "0.0.0.0", *given])
    assert result.exit_code == 0, result.stderr
    assert f"WARNING: listening on 0.0.0.0 {said}" in result.stdout


class _NoSocket:
    def __enter__(self) -> _NoSocket:
        return self

    def __exit__(self, *_: object) -> None:
        return


def test_the_commands_are_there():
    command = typer.main.get_command(app).commands["keys"]  # type: ignore[attr-defined]
    assert set(command.commands) == {"add", "list", "revoke"}
