"""Every workload that can be asked for: well-formed, the same for the same seed, as documented."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.criteria import CriteriaKind
from parrot_backend.sim.plan import check_program
from parrot_backend.sim.program import Arrival, Constant, Output, Program, ProgramCall
from parrot_backend.sim.workloads.building import LATENCY, text
from parrot_backend.sim.workloads.chats import (
    CHAT_LENGTHS,
    ChatLengths,
    recorded_chats,
    short_chats,
)
from parrot_backend.sim.workloads.checks import MAX_TOKENS, WorkloadError
from parrot_backend.sim.workloads.registry import APPS, make_workload
from parrot_backend.sim.workloads.settings import Parameter, Settings, Value
from tests.core.hypothesis_settings import examples

#: A few jobs of each.
FEW: dict[str, dict[str, Value]] = {
    "mixed": {"chats": 5},
    "chain_beside_background": {"background_s": 5.0},
}


def few(name: str, seed: int = 3) -> list[Arrival]:
    return list(islice(make_workload(name, seed, FEW.get(name, {"jobs": 4})), 40))


def prompt_tokens(program: Program) -> dict[str, int]:
    made = {call.name: call.output_tokens for call in program.calls}
    return {
        call.name: sum(p.tokens if isinstance(p, Constant) else made[p.call] for p in call.prompt)
        for call in program.calls
    }


@pytest.mark.parametrize("name", APPS)
def test_programs_are_well_formed_and_in_order_of_time(name: str):
    jobs = few(name)
    assert jobs
    for job in jobs:
        check_program(job.program)
        assert job.user
    assert [job.time_s for job in jobs] == sorted(job.time_s for job in jobs)


@pytest.mark.parametrize("name", APPS)
def test_equal_seeds_make_equal_workloads(name: str):
    assert few(name) == few(name)
    if name not in ("mooncake", "azure"):
        assert few(name, 3) != few(name, 4)


def test_workloads_do_not_depend_on_the_hashes_of_the_process():
    script = (
        "from hashlib import sha256\nfrom tests.sim.test_workloads import digest\nprint(digest())"
    )
    for seed in ("0", "1234"):
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == digest()


def digest() -> str:
    return sha256(repr({name: few(name) for name in APPS}).encode()).hexdigest()


@pytest.mark.parametrize("name", [name for name in APPS if name not in ("mooncake", "azure")])
def test_jobs_share_instructions_and_no_texts_of_their_own(name: str):
    """What two seeds have in common is what belongs to the application."""
    own = [
        {piece.key for job in few(name, seed) for call in job.program.calls for piece in call.prompt
         if isinstance(piece, Constant)}
        for seed in (1, 2)
    ]  # fmt: skip
    common = own[0] & own[1]
    assert all("/1/" not in key and "/2/" not in key for key in common)
    # Chats share nothing, and what projects of MetaGPT share is not recorded.
    assert bool(common) is (name not in ("chat", "metagpt"))
    assert own[0] - common


def test_chain_reads_one_call_after_another_with_the_artifacts_lengths():
    job = next(make_workload("chain_summary", 0, {"jobs": 1, "output_tokens": 25}))
    calls = job.program.calls
    assert len(calls) == 75
    assert [call.reads for call in calls] == [(), *[(call.name,) for call in calls[:-1]]]
    assert [name for name, _ in job.program.wanted] == [calls[-1].name]
    lengths = list(prompt_tokens(job.program).values())
    # First chunks of the first article are 472 and 314 tokens long.
    assert lengths[:2] == [22 + 472 + 9, 40 + 25 + 26 + 314 + 32]


def test_map_reduce_reads_all_chunks_at_once():
    job = next(make_workload("map_reduce_summary", 0, {"jobs": 1, "chunk_size": "2048"}))
    *maps, reduce = job.program.calls
    assert len(maps) == 38
    assert all(not call.reads for call in maps)
    assert reduce.reads == tuple(call.name for call in maps)
    assert prompt_tokens(job.program)["reduce"] == 8 + 38 * 50 + 37 + 25


def test_jobs_take_the_documents_in_turn_and_share_no_document():
    jobs = list(make_workload("map_reduce_summary", 0, {"jobs": 11}))
    lengths = [len(job.program.calls) for job in jobs]
    assert lengths == [76, 47, 54, 47, 63, 60, 105, 101, 50, 64, 76]
    assert jobs[0].program != jobs[10].program


@pytest.mark.parametrize(("files", "calls"), [(4, 29), (8, 57), (12, 85), (16, 113)])
def test_metagpt_has_the_recorded_lengths_for_any_number_of_files(files: int, calls: int):
    program = next(make_workload("metagpt", 0, {"jobs": 1, "files": files})).program
    assert len(program.calls) == calls
    lengths = prompt_tokens(program)
    by_round = [
        {length for name, length in lengths.items() if name.startswith(f"{number}-")}
        for number in range(8)
    ]
    assert by_round[0] == {248}
    assert max(by_round[3]) == 5476
    # All of a round wait for all of the round before.
    waits = {call.name: {*call.reads, *call.after} for call in program.calls}
    for call in program.calls:
        number = int(call.name.split("-")[0])
        before = {c.name for c in program.calls if c.name.startswith(f"{number - 1}-")}
        assert waits[call.name] == before


def test_metagpt_as_replayed_reads_nothing_but_waits():
    given: dict[str, Value] = {"jobs": 1, "files": 4, "review_rounds": 4, "as_replayed": "yes"}
    program = next(make_workload("metagpt", 0, given)).program
    assert len(program.calls) == 40
    assert all(not call.reads for call in program.calls)
    assert all(len(call.after) == 4 for call in program.calls[4:])
    # Repeated rounds ask the same again.
    prompts = {call.name: call.prompt for call in program.calls}
    assert prompts["2-1"] == prompts["4-1"] == prompts["8-1"]
    assert prompts["3-1"] == prompts["9-1"] != prompts["2-1"]


def test_mixed_is_the_load_of_figure_19():
    jobs = list(make_workload("mixed", 0, {}))
    chats = [job for job in jobs if job.program.app == "chat"]
    others = [job for job in jobs if job.program.app == "map_reduce_summary"]
    assert [job.time_s for job in chats] == list(range(40))
    assert [job.time_s for job in others] == [0, 0.5, 1, 11, 11.5, 12, 22, 22.5, 23]
    assert {len(job.program.calls) for job in others} == {76}
    for job in chats:
        (call,) = job.program.calls
        assert prompt_tokens(job.program)["answer"] <= 1024
        assert prompt_tokens(job.program)["answer"] + call.output_tokens <= 2048


@pytest.mark.parametrize("lengths", CHAT_LENGTHS)
def test_short_chats_are_those_that_the_artifact_would_admit(lengths: ChatLengths):
    chats = set(short_chats(lengths))
    everything = recorded_chats(lengths)
    assert 0 < len(chats) < len(everything)
    for chat in everything:
        fits = chat.prompt_tokens <= 1024 and chat.prompt_tokens + chat.output_tokens <= 2048
        assert (chat in chats) is (fits and min(chat.prompt_tokens, chat.output_tokens) >= 4)


def test_background_calls_are_equal_and_end():
    given: dict[str, Value] = {"background_s": 50.0, "background_per_s": 2.0}
    jobs = list(make_workload("chain_beside_background", 0, given))
    background = [job for job in jobs if job.program.app == "background"]
    assert len(jobs) == len(background) + 1
    assert len(background) == pytest.approx(100, abs=30)
    assert max(job.time_s for job in background) <= 50
    assert len({job.program.calls for job in background}) == 1


def test_agent_sessions_go_on_where_they_ended():
    for job in make_workload("swe_agent", 0, {"jobs": 30}):
        calls = job.program.calls
        assert calls[0].think_s == 0
        for before, call in pairwise(calls):
            assert call.prompt[: len(before.prompt)] == before.prompt
            assert call.prompt[len(before.prompt)] == Output(before.name)
            assert call.think_s > 0


def test_conversations_of_a_trace_have_one_user():
    users = [job.user for job in make_workload("mooncake", 0, {})]
    assert len(set(users)) == 7373
    assert len(set(make_workload("azure", 0, {"jobs": 50}))) == 50


@pytest.mark.parametrize("kind", CriteriaKind)
def test_users_ask_for_what_the_workload_says(kind: CriteriaKind):
    jobs = list(make_workload("debate", 0, {"jobs": 2, "criteria": kind.value}))
    assert {criteria.kind for job in jobs for _, criteria in job.program.wanted} == {kind}
    usual = list(make_workload("debate", 0, {"jobs": 2}))
    assert [job.program.calls for job in jobs] == [job.program.calls for job in usual]


def test_a_replay_runs_as_fast_as_it_is_told():
    slow = list(make_workload("azure", 0, {"jobs": 9}))
    fast = list(make_workload("azure", 0, {"jobs": 9, "speed": 4}))
    assert [job.time_s / 4 for job in slow] == [job.time_s for job in fast]
    assert [job.program for job in slow] == [job.program for job in fast]


@pytest.mark.parametrize(
    ("app", "given", "code", "says"),
    [
        ("chain", {}, "unknown_app", "map_reduce_summary"),
        ("chat", {"rate": 1}, "unknown_parameter", "rate_per_s"),
        ("chat", {"rate_per_s": 0}, "invalid_parameter", "above 0"),
        ("chat", {"rate_per_s": "nan"}, "invalid_parameter", "finite"),
        ("chat", {"rate_per_s": "fast"}, "invalid_parameter", "a number"),
        ("chat", {"jobs": 0}, "invalid_parameter", "at least 1"),
        ("chat", {"jobs": 2.5}, "invalid_parameter", "whole"),
        ("chat", {"jobs": True}, "invalid_parameter", "whole"),
        ("chat", {"arrivals": "never"}, "invalid_parameter", "poisson"),
        ("chain_summary", {"output_tokens": -1}, "invalid_parameter", "at least 1"),
        ("chain_summary", {"chunk_size": 1000}, "invalid_parameter", "512"),
        ("metagpt", {"files": 0}, "invalid_parameter", "files"),
        ("metagpt", {"as_replayed": "perhaps"}, "invalid_parameter", "true or false"),
        ("mooncake", {"speed": 0.0}, "invalid_parameter", "speed"),
        ("trading", {"traders": 9}, "invalid_parameter", "one of"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    app: str, given: dict[str, Value], code: str, says: str
):
    with pytest.raises(WorkloadError, match=says) as caught:
        make_workload(app, 0, given)
    assert caught.value.code == code


def test_texts_from_a_command_line_become_what_they_must_be():
    given: dict[str, Value] = {"n": "7", "x": "0.5", "yes": "TRUE", "word": "b", "whole": 2.0}
    parameters = (
        Parameter("n", 1, ""),
        Parameter("x", 1.0, ""),
        Parameter("yes", False, ""),
        Parameter("word", "a", "", choices=("a", "b")),
        Parameter("whole", 1, ""),
        Parameter("left", 4, ""),
    )
    settings = Settings("app", parameters, given)
    assert (settings.whole("n"), settings.real("x"), settings.flag("yes")) == (7, 0.5, True)
    assert (settings.word("word"), settings.whole("whole"), settings.whole("left")) == ("b", 2, 4)


def test_every_default_is_a_value_that_is_allowed():
    for app in APPS.values():
        for parameter in app.parameters:
            assert parameter.read(parameter.default) == parameter.default
            assert parameter.read(str(parameter.default)) == parameter.default


def call(name: str, *pieces: Constant | Output, **more: object) -> ProgramCall:
    return ProgramCall(name, pieces or text("t", 3) or (), 5, **more)  # type: ignore[arg-type]


GOOD = call("a")


@pytest.mark.parametrize(
    ("calls", "wanted", "says"),
    [
        ((), ("a",), "no call 'a'"),
        ((GOOD,), (), "nothing is wanted"),
        ((GOOD,), ("a", "a"), "wanted twice"),
        ((GOOD, GOOD), ("a",), "name of another"),
        ((call("b", Output("a")), GOOD), ("a",), "does not come before"),
        ((call("a", Output("a")),), ("a",), "does not come before"),
        ((GOOD, call("b", after=("c",))), ("a",), "needs 'c'"),
        ((ProgramCall("a", (), 1),), ("a",), "no prompt"),
        ((ProgramCall("a", (Constant("t", 0),), 1),), ("a",), "length"),
        ((ProgramCall("a", (Constant("t", -4),), 1),), ("a",), "length"),
        ((ProgramCall("a", (Constant("t", MAX_TOKENS + 1),), 1),), ("a",), "length"),
        ((ProgramCall("a", (Constant("t", 1),), 0),), ("a",), "length"),
        ((call("a", max_tokens=4),), ("a",), "more tokens than it may"),
        ((call("a", think_s=-1.0),), ("a",), "think time"),
        ((call("a", think_s=float("nan")),), ("a",), "think time"),
    ],
)
def test_a_program_that_cannot_run_is_refused(
    calls: tuple[ProgramCall, ...], wanted: tuple[str, ...], says: str
):
    with pytest.raises(WorkloadError, match=says) as caught:
        check_program(Program("app", calls, tuple((name, LATENCY) for name in wanted)))
    assert caught.value.code == "invalid_program"


VALUES = st.integers(-5, 5) | st.floats() | st.text("0123456789.-einfa", max_size=4) | st.booleans()
NAMES = ["jobs", "rate_per_s", "speed", "files", "tool_s", "experts", "cv", "x"]


@examples(50)
@given(st.sampled_from(sorted(APPS)), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3))
def test_any_parameters_make_a_workload_or_a_clear_refusal(name: str, values: dict[str, Value]):
    try:
        workload = make_workload(name, 1, values)
    except WorkloadError as error:
        refusal = error.code
    else:
        check_program(next(workload).program)
        return
    assert refusal in ("unknown_parameter", "invalid_parameter")


def test_the_page_names_every_workload_and_parameter():
    page = (Path(__file__).parents[2] / "docs/workloads.md").read_text()
    for app in APPS.values():
        assert f"`{app.name}`" in page
        for parameter in app.parameters:
            assert f"`{parameter.name}`" in page, (app.name, parameter.name)
