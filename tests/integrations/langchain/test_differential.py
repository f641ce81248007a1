"""Random chains run plainly and planned: same results, events and effects, and nothing left."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from parrot_backend.engines import scripted_reply
from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.langchain import as_parrot, watch_plans
from parrot_integrations.planning.background import background
from parrot_integrations.planning.context import current_plan
from tests.core.hypothesis_settings import examples
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.langchain.chain_kit import FAILING, Kit
from tests.integrations.langchain.chain_trees import Tree, inputs, trees
from tests.integrations.langchain.entries import BATCHES, ENTRIES
from tests.integrations.langchain.recording import Recorder, failure, plain

pytestmark = pytest.mark.e2e

#: Set the variable to search for longer.
_FACTOR = int(os.environ.get("PARROT_TEST_EXAMPLES_FACTOR", "1"))

#: Config that the trees' configurable parts react to.
_CONFIGS: list[dict[str, Any]] = [
    {},
    {"tags": ["outer"], "metadata": {"who": "me"}, "run_name": "root"},
    {"configurable": {"max_tokens": 3, "which": "long"}},
    {"configurable": {"which": "raw"}, "max_concurrency": 2},
]


#: What the engine says; a template, a list or a message may be tripped by each.
_WORDS = (
    *("<b>", "&amp;", "it's", '"so"', "{x}", "{{x}}", "{{input:x}}", "\ue000", "\ue0010:0:\ue001"),
    *("\n- one", "\n2. two\n", "\r\n", "\u2028", "[1,", '["a"]', "%s", "\\", "\x00", "", "a", "b"),
    *("\U0001f99c", "e\u0301", "&#x27;", "\t", "  ", "</s>", "apple", "hazel"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripted_reply, "WORDS", _WORDS)
        with scripted_server(ScriptedConfig(fail_on=FAILING)) as server:
            yield server


@dataclass
class Outcome:
    result: Any
    has_failed: bool
    events: Counter[str]
    effects: Counter[tuple[str, str]]


def run(
    tree: Tree,
    server: ScriptedServer,
    entry: str,
    given: list[str],
    config: dict[str, Any],
    *,
    is_planned: bool,
) -> Outcome:
    kit = Kit(server.url, is_planned)
    chain = tree.build(kit)
    if is_planned:
        chain = as_parrot(chain)
    recorder = Recorder(has_data=entry in ("invoke", "ainvoke"))
    full: Any = {**config, "callbacks": [recorder]}
    try:
        result, has_failed = plain(ENTRIES[entry](chain, given, full)), False
    except Exception as exc:  # noqa: BLE001 - errors are compared, too
        result, has_failed = failure(exc), True
    if entry in BATCHES and not has_failed:
        has_failed = any(
            isinstance(item, tuple) and item[0].endswith(("Error", "Failed")) for item in result
        )
    return Outcome(result, has_failed, recorder.events, kit.effects)


def settle(server: ScriptedServer) -> None:
    """Nothing is left on the server, and nobody listens any more."""
    assert current_plan.get() is None
    server.wait_until_idle()
    assert background().settle(10)
    server.wait_until_empty()
    for thread in threading.enumerate():
        if thread.name == "parrot-reader":
            thread.join(5)
            assert not thread.is_alive()


def check(
    server: ScriptedServer, tree: Tree, entry: str, given: list[str], config: dict[str, Any]
) -> None:
    plainly = run(tree, server, entry, given, config, is_planned=False)
    server.wait_until_idle()
    with watch_plans() as plans:
        planned = run(tree, server, entry, given, config, is_planned=True)
    for plan in plans:
        note(str(plan.report()))
    settle(server)
    assert planned.result == plainly.result
    # What runs at the same time as a step that fails may or may not be reached.
    if not plainly.has_failed:
        if entry not in BATCHES or not tree.has("retry", "fallbacks"):
            # LangChain's batches of these two do not run their parts as `invoke` does.
            assert planned.events == plainly.events
        assert planned.effects == plainly.effects


async def cancelled(chain: Any, given: str, config: dict[str, Any], after_s: float) -> None:
    task = asyncio.create_task(chain.ainvoke(given, config))
    await asyncio.sleep(after_s)
    task.cancel()
    # It may have ended before, well or badly.
    await asyncio.gather(task, return_exceptions=True)


_entries = st.sampled_from([name for name in ENTRIES if name != "invoke"])
_configs = st.sampled_from(_CONFIGS)


@given(trees(), inputs(), _configs)
@examples(120 * _FACTOR)
def test_invoke(server: ScriptedServer, tree: Tree, value: str, config: dict[str, Any]) -> None:
    check(server, tree, "invoke", [value], config)


@given(trees(), st.lists(inputs(), min_size=1, max_size=3), _entries, _configs)
@examples(120 * _FACTOR)
def test_other_entries(
    server: ScriptedServer, tree: Tree, values: list[str], entry: str, config: dict[str, Any]
) -> None:
    check(server, tree, entry, values, config)


# LangChain itself drops the coroutines of a batch that is cancelled before they begin.
@pytest.mark.filterwarnings("ignore:coroutine 'Runnable.abatch:RuntimeWarning")
@given(trees(), inputs(), _configs, st.sampled_from([0.0, 0.002, 0.005, 0.01, 0.02, 0.05]))
@examples(40 * _FACTOR)
def test_a_run_that_is_cancelled_leaves_nothing(
    server: ScriptedServer, tree: Tree, value: str, config: dict[str, Any], after_s: float
) -> None:
    chain = as_parrot(tree.build(Kit(server.url, True)))
    asyncio.run(cancelled(chain, value, config, after_s))
    settle(server)
