"""The example applications: planned, each gives what it gives call by call, in fewer submits."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import stamina

import parrot_integrations as P
from parrot_integrations.planning.background import background
from tests.helpers.scripted_server import scripted_server

EXAMPLES = Path(__file__).parents[3] / "examples" / "applications"

#: Example, front end -> submits call by call, submits planned, values set by the plan.
COUNTS = {
    ("chat_with_search", "native"): (5, 2, 1),
    ("chat_with_search", "langchain"): (5, 1, 1),
    ("four_gpts", "native"): (24, 12, 0),
    ("four_gpts", "langchain"): (24, 12, 0),
    ("long_document_qa", "native"): (21, 1, 0),
    ("long_document_qa", "langchain"): (4, 1, 0),
}
NAMES = sorted({name for name, _ in COUNTS})


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module(name)


@pytest.mark.parametrize(("name", "front"), COUNTS)
def test_an_application(name: str, front: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(name, monkeypatch)
    with scripted_server() as server:
        with P.ParrotClient(server.url) as client:
            ways = getattr(module, front)(client)
            expected = ways.call_by_call()
            plain = server.num_submits
            server.requests.clear()
            assert ways.planned() == expected
            assert background().settle(5)
        counted = (plain, server.num_submits, server.num_sets)
        server.wait_until_idle()
        server.wait_until_empty()
    assert counted == COUNTS[name, front]


@pytest.mark.parametrize("front", ["native", "langchain"])
def test_a_server_that_is_away_is_told_in_a_line(
    front: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load("chat_with_search", monkeypatch)
    arguments = ["chat_with_search", "--front", front, "--base-url", "http://127.0.0.1:9"]
    monkeypatch.setattr(sys, "argv", arguments)
    with (
        stamina.set_testing(True, attempts=1),
        pytest.raises(SystemExit, match=r"^failed: no connection to "),
    ):
        module.main(module.native, module.langchain)


@pytest.mark.parametrize("name", NAMES)
def test_both_front_ends_ask_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(name, monkeypatch)
    with scripted_server() as server, P.ParrotClient(server.url) as client:
        results: list[Any] = [
            getattr(module, front)(client).planned() for front in ("native", "langchain")
        ]
        assert background().settle(5)
    # The scripted engine's reply depends on every letter of the prompt.
    assert results[0] == results[1]


@pytest.mark.vllm
@pytest.mark.e2e
@pytest.mark.parametrize(("name", "front"), COUNTS)
def test_an_application_on_vllm(
    name: str, front: str, vllm_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(name, monkeypatch)
    with P.ParrotClient(vllm_url) as client:
        result = getattr(module, front)(client).planned()
        assert background().settle(5)
    parts = result if isinstance(result, list) else [result]
    texts = [t for part in parts for t in (part.values() if isinstance(part, dict) else [part])]
    assert len(texts) == {"chat_with_search": 2, "four_gpts": 24, "long_document_qa": 3}[name]
    assert all(texts)


def test_every_application_is_here() -> None:
    helpers = {"both_ways", "corpus", "system_prompts"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} - helpers == set(NAMES)
