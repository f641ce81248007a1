"""Programs in an event loop: tasks with an awaiting client, and ``aget`` with threads."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

import parrot_integrations as P
from tests.helpers.fake_parrot import FakeParrot


@P.SemanticFunction
def Ask(question: P.SemanticVariable):
    """Q: {{input:question}} A: {{output:answer}}"""


def num_reader_threads() -> int:
    return sum(thread.name == "parrot-reader" for thread in threading.enumerate())


async def test_the_whole_graph_goes_in_one_request(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    async with P.program(client=async_client):
        first = Ask("one")
        second = Ask(first)
        values = [await first.aget(), await second.aget()]
    assert (values[1], fake.log) == (
        "<Q: <Q: one A: > A: >",
        ["POST /v1/submit", "DELETE /v1/sessions/s1"],
    )


async def test_awaiting_needs_no_threads(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    fake.held = {"Ask-answer"}
    async with P.program(client=async_client):
        with pytest.raises(P.WaitTimeout):
            await Ask("one").aget(timeout_s=0.03)
        assert num_reader_threads() == 0


async def test_aget_all_wants_everything_in_one_request(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    async with P.program(client=async_client):
        first = Ask("one")
        await P.aget_all([first, Ask(first)], perf=P.THROUGHPUT)
    assert {wanted.criteria for wanted in fake.submits[0].outputs} == {P.THROUGHPUT}


async def test_concurrent_gets_are_one_request(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    async with P.program(client=async_client):
        answers = [Ask(str(number)) for number in range(20)]
        values = await asyncio.gather(*(answer.aget() for answer in answers))
    assert (len(set(values)), fake.count("POST")) == (20, 1)


async def test_a_blocking_get_is_refused_rather_than_stuck(
    async_client: P.AsyncParrotClient,
) -> None:
    async with P.program(client=async_client):
        with pytest.raises(P.ProgramError, match="use_async"):
            Ask("one").get()


@pytest.mark.parametrize(
    "use",
    [
        lambda answer: list(answer.stream()),
        lambda answer: P.get_all([answer]),
    ],
)
async def test_other_blocking_uses_are_refused_too(
    use: object, async_client: P.AsyncParrotClient
) -> None:
    assert callable(use)
    async with P.program(client=async_client):
        with pytest.raises(P.ProgramError, match="use_async"):
            use(Ask("one"))


async def test_a_cancelled_wait_does_not_disturb_others(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    fake.held = {"Ask-answer"}
    async with P.program(client=async_client):
        answer, other = Ask("one"), Ask("other")
        await other.aget()
        waits = [asyncio.create_task(answer.aget()) for _ in range(2)]
        await asyncio.sleep(0)
        waits[0].cancel()
        fake.finish("Ask-answer", "done")
        assert await waits[1] == "done"


async def test_a_failed_value_raises(fake: FakeParrot, async_client: P.AsyncParrotClient) -> None:
    def refuse(prompt: str) -> str:
        raise ValueError("prompt_too_long")

    fake.generate = refuse
    async with P.program(client=async_client):
        with pytest.raises(P.ValueFailed, match="prompt_too_long"):
            await Ask("one").aget()


async def test_a_submit_that_failed_is_sent_again_by_the_next_get(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    fake.mishaps = [httpx.ConnectError("no route")] * 5
    async with P.program(client=async_client):
        answer = Ask("one")
        with pytest.raises(P.ConnectionFailed):
            await answer.aget()
        assert await answer.aget() == "<Q: one A: >"


async def test_an_external_can_be_set_after_it_was_sent(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    async with P.program(client=async_client):
        late = P.SemanticVariable()
        answer = asyncio.create_task(Ask(late).aget())
        await asyncio.sleep(0)
        await late.aset("now")
        assert (await answer, fake.count("PUT")) == ("<Q: now A: >", 1)


async def test_a_value_can_be_given_up(fake: FakeParrot, async_client: P.AsyncParrotClient) -> None:
    fake.held = {"Ask-answer"}
    async with P.program(client=async_client):
        answer = Ask("one")
        wait = asyncio.create_task(answer.aget())
        await asyncio.sleep(0)
        await answer.acancel()
        with pytest.raises(P.ValueCancelled):
            await wait


async def test_leaving_the_scope_ends_all_readers(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    fake.held = {"Ask-answer"}
    async with P.program(client=async_client):
        with pytest.raises(P.WaitTimeout):
            await Ask("one").aget(timeout_s=0.03)
    assert len(asyncio.all_tasks()) == 1


async def test_leaving_the_scope_answers_who_waits_in_other_tasks(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    fake.held = {"Ask-answer"}
    async with P.program(client=async_client):
        answer, other = Ask("one"), Ask("other")
        await other.aget()
        wait = asyncio.create_task(answer.aget())
        await asyncio.sleep(0)
    with pytest.raises(P.ParrotError):
        await wait


async def test_a_kept_session_is_not_closed(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    async with P.program(client=async_client, keep=True):
        await Ask("one").aget()
    assert fake.count("DELETE") == 0


async def test_leaving_a_kept_program_still_ends_readers_and_answers_who_waits(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    fake.held = {"Ask-answer"}
    async with P.program(client=async_client, keep=True):
        answer, other = Ask("one"), Ask("other")
        await other.aget()
        wait = asyncio.create_task(answer.aget())
        await asyncio.sleep(0)
    with pytest.raises(P.ProgramError, match="program_closed"):
        await wait


async def test_awaiting_works_with_threads_too(fake: FakeParrot, client: P.ParrotClient) -> None:
    with P.program(client=client):
        first, second = Ask("one"), Ask("two")
        values = await asyncio.gather(first.aget(), second.aget())
    assert (values[1], fake.count("POST")) == ("<Q: two A: >", 1)


async def test_setting_and_cancelling_can_be_awaited_with_threads(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.held = {"Ask-answer-2"}
    with P.program(client=client):
        late = P.SemanticVariable()
        answer, other = Ask(late), Ask("other")
        wait = asyncio.create_task(answer.aget())
        await asyncio.sleep(0)
        await late.aset("now")
        await other.acancel()
        assert await wait == "<Q: now A: >"


def test_a_value_can_be_awaited_in_one_loop_after_another(client: P.ParrotClient) -> None:
    with P.program(client=client):
        first, second = Ask("one"), Ask("two")
        values = [asyncio.run(first.aget()), asyncio.run(second.aget())]
    assert values == ["<Q: one A: >", "<Q: two A: >"]
