"""Files of keys, ``parrot keys``, and what a running server makes of their changes."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from parrot_backend.cli import app
from parrot_backend.server import key_book
from parrot_backend.server.api_keys import (
    KeyFileError,
    KeyRecord,
    add_key,
    digest_of,
    read_keys,
    revoke_keys,
    tenant_of_key,
)
from parrot_backend.server.key_book import KeyBook


def keys(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["keys", *map(str, arguments)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


# --- the file ----------------------------------------------------------------------------------


def test_a_key_stands_for_its_tenant_and_is_not_in_the_file(path: Path):
    alice, bob = add_key(path, "alice"), add_key(path, "bob")

    records = read_keys(path)

    assert [tenant_of_key(key, records) for key in (alice, bob)] == ["alice", "bob"]
    assert [record.tenant for record in records.values()] == ["alice", "bob"]
    text = path.read_text()
    for key in (alice, bob):
        secret = key.split("_", 2)[2]
        assert len(secret) == 43
        assert secret not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["keys.json"]


def test_who_may_read_the_file_stays_as_it_was(path: Path):
    add_key(path, "alice")
    path.chmod(0o640)
    add_key(path, "bob")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


_KEY = f"parrot_{0:012}_secret"


@given(st.data())
def test_nothing_but_the_key_itself_stands_for_anybody(data: st.DataObject) -> None:
    records = {"0" * 12: KeyRecord("0" * 12, "alice", digest_of(_KEY), "")}
    place = data.draw(st.integers(0, len(_KEY) - 1))
    other = data.draw(st.characters(codec="latin-1").filter(lambda c: c != _KEY[place]))
    changed = data.draw(
        st.sampled_from(
            [_KEY[:place], _KEY[:place] + other + _KEY[place + 1 :], _KEY + other, other + _KEY]
        )
    )
    assert tenant_of_key(changed, records) is None
    assert tenant_of_key(_KEY, records) == "alice"


RECORD = {"id": "0" * 12, "tenant": "a", "sha256": "0" * 64, "created": "2026-01-01T00:00:00+00:00"}
WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "no JSON"),
    "a list": ([], "is not a file of keys"),
    "something else": ({"format": "x"}, "is not a file of keys"),
    "another version": ({"format": "parrot-keys", "version": 2}, "version 2"),
    "no keys": ({"format": "parrot-keys", "version": 1, "keys": {}}, "no list"),
    "a key of its own": ([{**RECORD, "key": "x"}], "key 1"),
    "a short digest": ([RECORD, {**RECORD, "sha256": "0"}], "key 2"),
    "a number": ([{**RECORD, "tenant": 1}], "key 1"),
    "one id twice": ([RECORD, RECORD], "two keys"),
}


@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_file_that_is_no_file_of_keys_is_left_alone(path: Path, content: Any, said: str):
    if isinstance(content, list) and content:
        content = {"format": "parrot-keys", "version": 1, "keys": content}
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    before = path.read_bytes()
    for use in (read_keys, lambda p: add_key(p, "a"), lambda p: revoke_keys(p, "a")):
        with pytest.raises(KeyFileError, match=said):
            use(path)
    assert path.read_bytes() == before


def _add(path: Path, tenant: str) -> None:
    add_key(path, tenant)


def test_keys_that_are_added_at_the_same_time_are_all_there(path: Path):
    context = multiprocessing.get_context("fork")
    adding = [context.Process(target=_add, args=(path, f"t{n}")) for n in range(8)]
    for process in adding:
        process.start()
    for process in adding:
        process.join()
    assert sorted(one.tenant for one in read_keys(path).values()) == [f"t{n}" for n in range(8)]


# --- the commands ------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_can_be_listed_and_revoked(path: Path):
    added = keys("add", "alice", "--api-keys", path)
    second = keys("add", "alice", "--api-keys", path)
    other = keys("add", "bob", "--api-keys", path)
    listed = keys("list", "--api-keys", path)

    key = added.stdout.strip()
    key_id = key.split("_")[1]
    assert tenant_of_key(key, read_keys(path)) == "alice"
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [
        one.stdout.split("_")[1] for one in (added, second, other)
    ]
    assert key not in added.stderr + listed.stdout
    assert keys("revoke", key_id, "--api-keys", path).stdout == f"revoked {key_id} of alice\n"
    assert tenant_of_key(key, read_keys(path)) is None
    assert keys("revoke", "alice", "--api-keys", path).stdout.count("revoked") == 1
    assert [one.tenant for one in read_keys(path).values()] == ["bob"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "a b"), "a tenant's name has"),
        (("add", ""), "a tenant's name has"),
        (("add", "0123456789ab"), "a tenant's name has"),
        (("add", "x" * 65), "a tenant's name has"),
        (("revoke", "nobody"), "has no key with this id"),
    ],
)
def test_what_cannot_be_is_said(path: Path, arguments: tuple[str, ...], said: str):
    add_key(path, "alice")
    before = path.read_bytes()
    result = keys(*arguments, "--api-keys", path)
    assert result.exit_code == 2
    assert said in result.stderr
    assert path.read_bytes() == before


def test_a_file_that_is_not_there_is_said(path: Path):
    result = keys("list", "--api-keys", path)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "No such file" in result.stderr


# --- a running server --------------------------------------------------------------------------


def test_keys_come_and_go_while_the_server_runs(path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    alice = add_key(path, "alice")
    book = KeyBook(path)
    bob = add_key(path, "bob")
    assert (book.tenant_of(alice), book.tenant_of(bob)) == ("alice", "bob")
    revoke_keys(path, "alice")
    assert (book.tenant_of(alice), book.tenant_of(bob)) == (None, "bob")
    assert not any(key in caplog.text for key in (alice, bob))


@pytest.mark.parametrize("content", [None, "{"])
def test_no_key_works_while_the_file_cannot_be_read(
    path: Path, content: str | None, caplog: pytest.LogCaptureFixture
):
    key = add_key(path, "alice")
    whole = path.read_bytes()
    book = KeyBook(path)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    assert [book.tenant_of(key), book.tenant_of(key)] == [None, None]
    assert sum("no key works" in record.getMessage() for record in caplog.records) == 1
    path.write_bytes(whole)
    assert book.tenant_of(key) == "alice"


def test_a_file_that_could_not_be_opened_for_a_moment_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    alice = add_key(path, "alice")
    book = KeyBook(path)
    bob = add_key(path, "bob")

    def refuse(_: Path) -> Mapping[str, KeyRecord]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(key_book, "read_keys", refuse)
        assert [book.tenant_of(alice), book.tenant_of(alice)] == [None, None]
    assert sum("no key works" in record.getMessage() for record in caplog.records) == 1
    assert (book.tenant_of(alice), book.tenant_of(bob)) == ("alice", "bob")


def test_an_absurdly_long_key_is_nobodys(path: Path):
    add_key(path, "alice")
    assert KeyBook(path).tenant_of("parrot_" + "0" * 100_000) is None
