import httpx
import pytest

import parrot_integrations as P
from parrot_backend.demo.programs import (
    ChainSummary,
    MapReduceSummary,
    SnakeGame,
    fixed_length,
    prompt_of,
)
from tests.helpers.fake_parrot import FakeParrot

SAMPLING = fixed_length(max_tokens=16)
PROGRAMS = [
    ChainSummary(["first", "second", "third"], SAMPLING),
    MapReduceSummary(["first", "second"], SAMPLING),
    SnakeGame(SAMPLING),
]


def summary_of(prompt):
    return f" <{len(prompt)} characters>"


async def run_call_by_call(program):
    prompts = {}

    async def ask(name, prompt):
        prompts[name] = prompt
        return summary_of(prompt)

    return await program.call_by_call(ask), prompts


async def run_one_submit(program):
    prompts = []

    def generate(prompt):
        prompts.append(prompt)
        return summary_of(prompt)

    fake = FakeParrot(generate)
    transport = httpx.MockTransport(fake.ahandle)
    async with (
        P.AsyncParrotClient("http://parrot", transport=transport) as client,
        P.program(client=client, keep=True),
    ):
        return await program.one_submit(), prompts, fake


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.title)
async def test_both_forms_send_the_same_prompts_and_return_the_same_text(program):
    ordinary_text, ordinary_prompts = await run_call_by_call(program)
    parrot_text, parrot_prompts, _ = await run_one_submit(program)
    assert ordinary_text == parrot_text
    assert set(ordinary_prompts) == set(program.call_names)
    assert sorted(ordinary_prompts.values()) == sorted(parrot_prompts)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.title)
async def test_the_whole_program_is_one_submit_with_its_calls_in_order(program):
    _, _, fake = await run_one_submit(program)
    (submit,) = fake.submits
    calls = [node for node in submit.nodes if node.kind == "call"]
    assert len(calls) == len(program.call_names)
    assert {call.sampling for call in calls} == {SAMPLING}


def test_outputs_have_a_fixed_length():
    assert SAMPLING.ignore_eos
    assert (SAMPLING.max_tokens, SAMPLING.temperature) == (16, 0)


def test_a_prompt_ends_where_the_output_begins():
    @P.SemanticFunction
    def Greet(name: P.SemanticVariable):
        """Greet {{input:name}}:{{output:greeting}} and go on"""

    assert prompt_of(Greet, name="Ada") == "Greet Ada:"
