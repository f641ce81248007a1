from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.discovery.beginnings import Beginning, Message, shared_beginnings
from parrot_backend.core.discovery.pieces import Fresh, Reference
from parrot_backend.core.discovery.structure import FoundCall, RunStructure
from parrot_backend.core.ids import VariableId
from tests.helpers.agent_traffic import TASK, TrafficCall, metagpt_calls, round_robin_calls


def play(calls: list[TrafficCall], run: RunStructure | None = None) -> list[FoundCall]:
    """Return what is found of each call."""
    run = run or RunStructure()
    found: list[FoundCall] = []
    ended = 0
    for call in calls:
        for index in range(ended, call.waits):
            run.end(found[index], VariableId(calls[index].name), calls[index].reply)
        ended = call.waits
        found.append(run.begin(call.texts))
    return found


def _shares(calls: list[TrafficCall], found: list[FoundCall]) -> tuple[float, float]:
    """Return which share of the characters is of values, and which is of anything known."""
    total = sum(len(text) for call in calls for text in call.texts)
    pieces = [piece for call in found for text in call.pieces for piece in text]
    values = sum(p.end - p.start for p in pieces if isinstance(p, Reference))
    fresh = sum(p.end - p.start for p in pieces if isinstance(p, Fresh))
    return values / total, 1 - fresh / total


@pytest.mark.parametrize("talks", [False, True], ids=["code only", "talks"])
@pytest.mark.parametrize(
    ("num_files", "num_calls", "num_edges"), [(4, 29, 136), (8, 57, 464), (16, 113, 1696)]
)
def test_all_edges_of_the_coding_task_are_found_and_no_other(
    num_files: int, num_calls: int, num_edges: int, talks: bool
) -> None:
    calls = list(metagpt_calls(num_files, seed=num_files, talks=talks))
    found = play(calls)
    assert [frozenset(f.reads) for f in found] == [c.reads for c in calls]
    assert (len(found), sum(len(f.reads) for f in found)) == (num_calls, num_edges)
    assert _shares(calls, found)[1] >= 0.97


@pytest.mark.parametrize(
    "shown_as",
    [
        lambda code: re.sub(r' {4}""".*?"""\n', "", code),
        lambda code: "\n".join(code.split("\n")[:60]),
        lambda code: re.sub(r"\n+", "\n", code).replace("    ", "\t"),
        lambda code: "\n".join(line.strip() for line in code.split("\n")),
    ],
    ids=["no docstrings", "first lines", "tabs", "no indentation"],
)
def test_code_that_a_program_edits_gives_fewer_edges_and_none_that_is_false(
    shown_as: Callable[[str], str],
) -> None:
    for seed in (53, 54):
        calls = list(metagpt_calls(4, seed=seed, talks=True, shown_as=shown_as))
        found = play(calls)
        assert all(f.reads for f in found[1:])
        assert all(frozenset(f.reads) <= c.reads for f, c in zip(found, calls, strict=True))


def test_an_input_of_the_client_is_a_variable_too() -> None:
    calls = list(metagpt_calls(4))
    run = RunStructure()
    run.set_input(VariableId("task"), TASK)
    found = play(calls, run)
    assert [frozenset(f.reads) - {"task"} for f in found] == [c.reads for c in calls]
    assert all("task" in f.reads for f in found)
    assert found[0].stage == 0
    assert _shares(calls, found)[0] >= 0.97


def test_stages_of_the_coding_task() -> None:
    calls = list(metagpt_calls(4))
    run = RunStructure()
    found = play(calls, run)
    assert [stage.width for stage in run.shape()] == [1, 4, 4, 4, 4, 4, 4, 4]
    assert all(len(stage.templates) == 1 for stage in run.shape())
    by_step = {(call.step, f.template) for call, f in zip(calls, found, strict=True)}
    assert len(by_step) == 4
    assert [f.num_siblings for f in found[:9]] == [0, 0, 1, 2, 3, 0, 1, 2, 3]


def test_agents_that_speak_in_turn() -> None:
    calls = list(round_robin_calls(9))
    run = RunStructure()
    found = play(calls, run)
    assert [frozenset(f.reads) for f in found] == [c.reads for c in calls]
    assert sum(len(f.reads) for f in found) == 36
    assert [stage.width for stage in run.shape()] == [1] * 9
    # The first one reads nothing that was said.
    assert len({f.template for f in found[1:]}) == 3


def test_a_call_that_failed_is_read_by_none() -> None:
    run = RunStructure()
    first = run.begin(["Outline the files."])
    run.end(first)
    assert run.begin(["Outline the files."]).reads == ()
    assert [stages[0].width for stages in run.shapes()] == [1, 1]


def _message(position: int, *texts: str, head: str = "user") -> Message:
    return Message(head, tuple((position + n, text) for n, text in enumerate(texts)))


def _chain(call: TrafficCall, found: FoundCall, seed: str = "m") -> list[bytes]:
    messages = tuple(_message(2 * n + 1, text) for n, text in enumerate(call.texts))
    chain = [b.boundary for b in shared_beginnings(seed, messages, found.cuts(), 0.25)]
    assert [b.tokens for b in chain] == sorted(b.tokens for b in chain)
    return [boundary.hash for boundary in chain]


def test_siblings_share_the_beginning_up_to_where_they_part() -> None:
    calls = [call for call in metagpt_calls(4) if call.step != "review"]
    plain = [TrafficCall(c.name, c.step, c.texts[1:], c.reply, c.reads, c.waits) for c in calls]
    found = play(list(islice(plain, 5)))
    one, other = (_chain(plain[i], found[i]) for i in (1, 2))
    assert one[:3] == other[:3]
    assert set(one[3:]).isdisjoint(other)
    texts = plain[1].texts[0], plain[2].texts[0]
    end = found[2].pieces[0][2].end
    assert texts[0][:end] == texts[1][:end]
    assert set(_chain(plain[1], found[1], "other tenant")).isdisjoint(one)


def test_a_beginning_says_what_is_before_it_and_in_which_message_and_part() -> None:
    cases: list[list[tuple[str, ...]]] = [
        [("user", "ab")],
        [("user", "a", "b")],
        [("user", "a"), ("user", "b")],
        [("user", "c"), ("user", "b")],
        [("user", "a"), ("assistant", "b")],
        [("usera", "b")],
        [("", "userab")],
    ]
    chains = []
    for case in cases:
        messages = tuple(_message(0, *texts, head=head) for head, *texts in case)
        cuts = tuple((len(message.text),) for message in messages)
        chains.append(shared_beginnings("", messages, cuts, 1.0))
    assert len({chain[-1].boundary.hash for chain in chains}) == len(cases)
    cut = shared_beginnings("", (_message(0, "abc"),), ((2,),), 1.0)
    assert cut == chains[0]


@pytest.mark.parametrize(
    ("cuts", "places"),
    [
        ([], []),
        ([1, 4, 5, 9], [(3, 1), (3, 4), (5, 1), (6, 1)]),
        ([4, 8], [(3, 4), (5, 4)]),
        ([10], [(6, 2)]),
    ],
)
def test_a_beginning_says_where_it_ends(cuts: list[int], places: list[tuple[int, int]]) -> None:
    message = Message("user", ((3, "abcd"), (4, ""), (5, "efgh"), (6, "ij")))
    found: tuple[Beginning, ...] = shared_beginnings("", (message,), (tuple(cuts),), 1.0)
    assert [(beginning.part, beginning.offset) for beginning in found] == places
    assert [beginning.boundary.tokens for beginning in found] == [len("user") + at for at in cuts]


@given(st.text(max_size=9), st.lists(st.integers(0, 9), max_size=4), st.lists(st.integers(0, 9)))
def test_other_cuts_change_no_hash(text: str, some: list[int], more: list[int]) -> None:
    def of(cuts: list[int]) -> set[Beginning]:
        rising = tuple(sorted({min(cut, len(text)) for cut in cuts}))
        return {*shared_beginnings("", (_message(1, text),), (rising,), 1.0)}

    assert of(some) <= of([*some, *more])
