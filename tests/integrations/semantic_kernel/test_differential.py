"""Random programs run plainly and planned: same results, filters and effects, and nothing left."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.engines import scripted_reply
from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.semantic_kernel import watch_plans
from tests.core.hypothesis_settings import examples
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.semantic_kernel.kernel_kit import settle
from tests.integrations.semantic_kernel.random_programs import (
    FAILING,
    WORDS,
    RandomProgram,
    random_program,
)

pytestmark = pytest.mark.e2e

#: Set the variable to search for longer.
_FACTOR = int(os.environ.get("PARROT_TEST_EXAMPLES_FACTOR", "1"))


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripted_reply, "WORDS", WORDS)
        with scripted_server(ScriptedConfig(fail_on=FAILING)) as server:
            yield server


async def check(
    server: ScriptedServer, program: RandomProgram, *, is_streaming: bool
) -> Counter[str]:
    """Run a program both ways; return how much was planned and used."""
    plainly, planned = (program.build(server.url, is_planned=p) for p in (False, True))
    expected = await plainly.run(program, is_streaming=is_streaming)
    with watch_plans() as plans:
        result = await planned.run(program, is_streaming=is_streaming)
    reports = [plan.report() for plan in plans]
    about = "\n".join(map(str, reports))
    await settle(server)
    assert result == expected, about
    assert planned.native.calls == plainly.native.calls
    if "asks_both" in plainly.native.calls:
        # Two at the same time come in any order.
        planned.seen.sort(key=repr)
        plainly.seen.sort(key=repr)
    assert planned.seen == plainly.seen, about
    sent = [report for report in reports if report.num_submits]
    return Counter(
        planned=sum(report.num_planned for report in sent),
        used=sum(report.num_claimed - report.num_lost for report in sent),
        missed=sum(report.num_missed for report in sent),
    )


@st.composite
def programs(draw: Any) -> RandomProgram:
    return random_program(lambda some: draw(st.sampled_from(some)))


@given(programs(), st.booleans())
@examples(100 * _FACTOR)
async def test_random_programs(
    server: ScriptedServer, program: RandomProgram, is_streaming: bool
) -> None:
    await check(server, program, is_streaming=is_streaming)


async def test_most_calls_of_random_programs_are_planned(server: ScriptedServer) -> None:
    total: Counter[str] = Counter()
    for seed in range(60):
        program = random_program(random.Random(seed).choice)
        total += await check(server, program, is_streaming=False)
    # Control characters and the like break the rest.
    assert total["planned"] > 80
    assert total["used"] > 0.6 * total["planned"]
