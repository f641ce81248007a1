"""The zero-load bound against times that can be computed by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.step_time import StepWork
from parrot_backend.sim.bound import bound
from parrot_backend.sim.program import Constant, Output, Piece, Program, ProgramCall
from parrot_backend.sim.spec import ClientKind, ClientSpec, Delay, EngineSpec
from parrot_backend.sim.workloads.building import LATENCY
from parrot_backend.sim.workloads.checks import WorkloadError
from parrot_backend.sim.workloads.registry import make_workload
from tests.core.hypothesis_settings import examples


@dataclass(frozen=True, slots=True)
class Linear:
    """A second for each step with prompt tokens or decodes, and parts for what they compute."""

    base_s: float = 1.0
    per_prefill_token_s: float = 0.01
    per_pair_s: float = 0.0
    per_context_token_s: float = 0.0

    def step_s(self, work: StepWork) -> float:
        return (
            self.base_s
            + self.per_prefill_token_s * work.prefill_tokens
            + self.per_pair_s * work.prefill_pairs
            + self.per_context_token_s * work.context_tokens
        )

    def decode_run_s(self, decodes: int, context_tokens: int, num_steps: int) -> float:
        reads = num_steps * context_tokens + decodes * num_steps * (num_steps - 1) // 2
        return num_steps * self.base_s + self.per_context_token_s * reads


#: A prompt of 100 tokens takes 2 s, each further output token 1 s.
ENGINE = EngineSpec(Linear(), num_blocks=10_000, block_tokens=1, max_step_tokens=100_000)
NO_NET = ClientSpec(round_trip=Delay(0.0, 0.0))


def client(kind: ClientKind = "graph", round_trip_s: float = 10.0, overhead_s: float = 0.0):
    return ClientSpec(kind, Delay(0.5 * round_trip_s, 1.5 * round_trip_s), overhead_s)


def call(name: str, *prompt: Piece, out: int = 4, **more: object) -> ProgramCall:
    return ProgramCall(name, prompt, out, **more)  # type: ignore[arg-type]


def program(*calls: ProgramCall, wanted: tuple[str, ...] = ()) -> Program:
    names = wanted or (calls[-1].name,)
    return Program("app", calls, tuple((name, LATENCY) for name in names))


ONE = call("a", Constant("x", 100))


def test_one_call_is_its_prompt_its_other_tokens_and_a_round_trip():
    found = bound(program(ONE), ENGINE, client())
    assert found.job_s == pytest.approx(10 + 2 + 3)
    assert found.path == ("a",)


def test_long_prompts_take_several_steps_that_read_what_was_before():
    engine = replace(ENGINE, max_step_tokens=60, latency=Linear(per_pair_s=0.001))
    # Chunks of 60 and 40: 60 * 30 pairs, then 40 * (60 + 20).
    time_s = 2 * 1 + 100 * 0.01 + 0.001 * (60 * 30 + 40 * 80)
    assert bound(program(ONE), engine, NO_NET).job_s == pytest.approx(time_s + 3)
    assert bound(program(ONE), engine, NO_NET, num_engines=9).job_s == pytest.approx(time_s + 3)


def test_decoding_reads_what_was_made():
    engine = replace(ENGINE, latency=Linear(per_context_token_s=0.1))
    assert bound(program(ONE), engine, NO_NET).job_s == pytest.approx(2 + 3 + 30 + 0.1 * 3)


CHAIN = (ONE, call("b", Output("a"), Constant("y", 96)), call("c", Output("b"), Constant("z", 96)))


def test_a_chain_waits_for_each_call():
    # The first prompt is 100 tokens, the others 4 read and 96 that follow them: nothing ahead.
    assert bound(program(*CHAIN), ENGINE, client()).job_s == pytest.approx(10 + 3 * 5)
    assert bound(program(*CHAIN), ENGINE, client()).path == ("a", "b", "c")


def test_clients_that_send_call_by_call_make_a_round_trip_for_each():
    found = bound(program(*CHAIN), ENGINE, client("calls", overhead_s=0.5))
    assert found.job_s == pytest.approx(3 * (10 + 5 + 0.5))
    found = bound(program(*CHAIN), ENGINE, client("graph", overhead_s=0.5))
    assert found.job_s == pytest.approx(10 + 3 * 5 + 0.5)


def test_thinking_takes_a_round_trip_even_within_a_graph():
    thinks = replace(CHAIN[1], think_s=7.0)
    found = bound(program(ONE, thinks), ENGINE, client(overhead_s=0.5))
    # What "a" made is at the server: its 4 tokens are computed while the client thinks.
    assert found.job_s == pytest.approx(10 + 5 + (5 - 0.04) + 10 + 7 + 2 * 0.5)
    alone = bound(program(replace(ONE, think_s=7.0)), ENGINE, client())
    assert alone.job_s == pytest.approx(7 + 10 + 5)


AHEAD = (ONE, call("b", Constant("y", 96), Output("a")))


def test_what_is_known_of_a_prompt_is_computed_ahead():
    # After "a" only its 4 tokens are to be computed: 1.04 s instead of 2.
    assert bound(program(*AHEAD), ENGINE, NO_NET).job_s == pytest.approx(5 + 1.04 + 3)
    assert bound(program(*AHEAD), ENGINE, NO_NET, ahead=False).job_s == pytest.approx(5 + 5)
    # Somebody who gets calls knows nothing of the next one.
    found = bound(program(*AHEAD), ENGINE, replace(NO_NET, kind="calls"))
    assert found.job_s == pytest.approx(5 + 5)


def test_a_prompt_that_is_only_waited_for_needs_its_last_token():
    waits = call("b", Constant("y", 100), after=("a",))
    found = bound(program(ONE, waits), ENGINE, NO_NET)
    assert found.job_s == pytest.approx(5 + 1.01 + 3)
    assert found.path == ("a", "b")


def test_a_conversation_goes_on_from_what_the_engine_holds():
    goes_on = call("b", Constant("x", 100), Output("a"), Constant("y", 10))
    # The prompt and the output of "a" are held: 10 tokens are new.
    for ahead in (True, False):
        found = bound(program(ONE, goes_on), ENGINE, NO_NET, ahead=ahead)
        assert found.job_s == pytest.approx(5 + 1.1 + 3)
    no_cache = replace(ENGINE, caches_prefixes=False)
    found = bound(program(ONE, goes_on), no_cache, NO_NET, ahead=False)
    assert found.job_s == pytest.approx(5 + 2.14 + 3)


def test_prefixes_are_shared_in_whole_blocks():
    goes_on = call("b", Constant("x", 100), Output("a"), Constant("y", 10))
    engine = replace(ENGINE, block_tokens=16)
    # 96 of 104 tokens lie in whole blocks.
    found = bound(program(ONE, goes_on), engine, NO_NET, ahead=False)
    assert found.job_s == pytest.approx(5 + 1.18 + 3)


def test_what_ran_before_is_warm():
    other = program(call("other", Constant("x", 100), Constant("else", 5)))
    assert bound(program(ONE), ENGINE, NO_NET, warm=[other]).job_s == pytest.approx(1.01 + 3)
    longer = call("a", Constant("x", 100), Constant("y", 20))
    assert bound(program(longer), ENGINE, NO_NET, warm=[other]).job_s == pytest.approx(1.2 + 3)
    strange = program(call("other", Constant("x", 99)))
    assert bound(program(ONE), ENGINE, NO_NET, warm=[strange]).job_s == pytest.approx(5)


def test_parallel_calls_wait_for_their_prompts_to_be_computed():
    maps = [call(f"m{n}", Constant(f"t{n}", 100)) for n in range(8)]
    reduce = call("r", *[Output(m.name) for m in maps])
    # One engine: 800 tokens in one step are 9 s, then the last map's other tokens. Of the reduce's
    # prompt at least one token is known no earlier.
    found = bound(program(*maps, reduce), ENGINE, NO_NET)
    assert found.job_s == pytest.approx(9 + 3 + 1.01 + 3)
    # On enough engines each map is alone.
    found = bound(program(*maps, reduce), ENGINE, NO_NET, num_engines=8)
    assert found.job_s == pytest.approx(5 + 1.32 + 3)
    assert found.path[-1] == "r"
    assert len(found.path) == 2


def test_reading_what_is_only_their_own_is_work_of_each_call():
    engine = replace(ENGINE, latency=Linear(per_context_token_s=0.001))
    maps = [call(f"m{n}", Constant("shared", 50), Constant(f"t{n}", 100)) for n in range(8)]
    reduce = call("r", *[Output(m.name) for m in maps])
    # 850 tokens in one step; 3 more steps; 8 times 100 tokens read in 3 steps of each.
    begins_s = 9.5 + 3 + 2.4
    found = bound(program(*maps, reduce), engine, NO_NET)
    assert found.job_s == pytest.approx(begins_s + 1.01 + 3 + 0.001 * (3 * 32 + 3))
    assert found.path == ("r",)
    together = bound(program(*maps, wanted=tuple(m.name for m in maps)), engine, NO_NET)
    assert together.job_s == pytest.approx(begins_s)


def test_parallel_calls_share_their_prefix():
    maps = [call(f"m{n}", Constant("shared", 100), Constant(f"t{n}", 10)) for n in range(8)]
    reduce = call("r", *[Output(m.name) for m in maps])
    found = bound(program(*maps, reduce), ENGINE, NO_NET)
    assert found.job_s == pytest.approx(1 + 1.8 + 3 + 1.01 + 3)
    no_cache = replace(ENGINE, caches_prefixes=False)
    found = bound(program(*maps, reduce), no_cache, NO_NET)
    assert found.job_s == pytest.approx(1 + 8.8 + 3 + 1.01 + 3)


def test_the_last_wanted_output_counts_and_what_nobody_wants_does_not():
    slow = call("slow", Constant("s", 1000), out=100)
    found = bound(program(ONE, slow, wanted=("a",)), ENGINE, NO_NET)
    assert found.job_s == pytest.approx(5)
    both = bound(program(ONE, slow, wanted=("a", "slow")), ENGINE, NO_NET)
    assert both.job_s == pytest.approx(11 + 99)
    assert both.path == ("slow",)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(WorkloadError, match="does not come before"):
        bound(program(CHAIN[1]), ENGINE, NO_NET)
    with pytest.raises(WorkloadError, match="num_engines"):
        bound(program(ONE), ENGINE, NO_NET, num_engines=0)


APPS = ("chain_summary", "metagpt", "debate", "reflection", "trading", "swe_agent", "copilot")


@examples(20)
@given(st.sampled_from(APPS), st.integers(0, 3), st.integers(1, 4), st.sampled_from([1, 16]))
def test_more_freedom_never_makes_a_job_slower(app: str, seed: int, engines: int, block: int):
    job = next(make_workload(app, seed, {"jobs": 1})).program
    latency = Linear(0.02, 1e-4, 1e-8, 6e-7)
    engine = replace(ENGINE, latency=latency, block_tokens=block, max_step_tokens=2048)
    net = client(round_trip_s=0.25)
    freest = bound(job, engine, net, num_engines=engines, warm=[job]).job_s
    warm = bound(job, engine, net, num_engines=engines).job_s
    alone = bound(job, engine, net).job_s
    waiting = bound(job, engine, net, ahead=False).job_s
    uncached = bound(job, replace(engine, caches_prefixes=False), net, ahead=False).job_s
    by_calls = bound(job, engine, replace(net, kind="calls")).job_s
    times = [freest, warm, alone, waiting, uncached]
    assert times == sorted(times)
    assert by_calls >= waiting
