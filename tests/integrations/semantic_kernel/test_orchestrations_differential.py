"""Random orchestrations run plainly and planned: same results, same callbacks, nothing left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from semantic_kernel.contents import AuthorRole, ChatMessageContent

from parrot_backend.engines import scripted_reply
from parrot_integrations.semantic_kernel import watch_plans
from tests.core.hypothesis_settings import examples
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.semantic_kernel.orchestra import (
    KINDS,
    PLAIN,
    PLANNED,
    Heard,
    agents,
    build,
    execute,
    run,
    settle,
    texts,
)

pytestmark = pytest.mark.e2e

#: Set the variable to search for longer.
_FACTOR = int(os.environ.get("PARROT_TEST_EXAMPLES_FACTOR", "1"))

_AWKWARD = (
    *("<b>", "&amp;", "it's", '"so"', "{{$x}}", "{{input:x}}", "\ue000", "\ue0010:0:\ue001"),
    *("\n- one", "\r\n", "\u2028", "\u2003\u2002", "%s", "\\", "\x00", "", "a", " ", "\t"),
    *("\U0001f99c", "e\u0301", "&#x27;", "</s>", "Transferred to agent0", "<message role='user'>"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripted_reply, "WORDS", _AWKWARD)
        with scripted_server() as server:
            yield server


@dataclass
class Program:
    """One orchestration.

    Attributes:
        kind: Which.
        instructions: Of each agent.
        rounds: Of a group chat.
        task: What it is asked.
    """

    kind: str
    instructions: list[str | None]
    rounds: int
    task: Any

    @property
    def is_plannable(self) -> bool:
        """Whether something is said in each call."""
        said = self.task if isinstance(self.task, str) else "a message"
        return bool(said) or all(self.instructions)

    @property
    def num_calls(self) -> int:
        return self.rounds if self.kind == "group chat" else len(self.instructions)


_texts = st.lists(st.sampled_from(_AWKWARD), max_size=4).map("".join)
#: The braces of a template would need a function.
_instructions = st.none() | _texts.map(lambda text: text.replace("{{", "{").replace("}}", "}"))


def _message(role: AuthorRole, text: str) -> ChatMessageContent:
    return ChatMessageContent(role=role, content=text)


_messages = st.builds(
    _message, st.sampled_from([AuthorRole.USER, AuthorRole.ASSISTANT]), _texts.map("Say: {}".format)
)
_tasks = _texts | _messages | st.lists(_messages, min_size=1, max_size=3)
_programs = st.builds(
    Program,
    st.sampled_from(KINDS),
    st.lists(_instructions, min_size=1, max_size=4),
    st.integers(1, 5),
    _tasks,
)


def outcome(program: Program, server: ScriptedServer, classes: dict[str, Any]) -> tuple[Any, ...]:
    heard = Heard()
    members = agents(server.url, *program.instructions)
    orchestration = build(classes, program.kind, members, heard, program.rounds)
    try:
        result = texts(execute(run(orchestration, program.task)))
    except Exception as exc:  # noqa: BLE001 - errors are compared, too
        return (type(exc).__name__, str(exc))
    return (result, dict(heard.answers), dict(heard.streams))


@given(_programs)
@examples(100 * _FACTOR)
def test_the_same_with_and_without_a_plan(server: ScriptedServer, program: Program) -> None:
    plainly = outcome(program, server, PLAIN)
    server.wait_until_idle()
    server.requests.clear()
    with watch_plans() as plans:
        planned = outcome(program, server, PLANNED)
    settle(server)
    (report,) = (plan.report() for plan in plans)
    note(str(report))
    assert planned == plainly
    if len(plainly) == 3 and program.is_plannable:
        assert server.num_submits == 1
        assert report.num_claimed == (program.num_calls if program.num_calls > 1 else 0)
        assert report.num_missed == 0
