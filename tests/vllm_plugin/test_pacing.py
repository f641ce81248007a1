"""Who runs in the next step while latency-sensitive requests run or wait."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.pacing import Pacer, PacingOptions, StepPlan
from parrot_backend.core.step_time import StepTimeModel, StepWork
from parrot_backend.vllm_plugin.hints import RequestClass
from tests.core.hypothesis_settings import examples

LATENCY, GROUP, THROUGHPUT, FILL = RequestClass

MIN_CHUNK = PacingOptions().min_chunk_tokens
MAX_HOLD_S = PacingOptions().max_hold_s

#: A step takes 10.5 ms, a decode 1 ms and a prompt token 0.1 ms, whatever the context.
#: Targets that one or two decodes just keep, so that there is no room for anything else.
TIGHT, TIGHT_FOR_TWO = 0.01151, 0.01251

MODEL = StepTimeModel(0.0105, 1e-4, 1e-3, 0.0, 0.0, num_samples=100, error=0.0)


@dataclass(slots=True)
class Running:
    """A request as the engine knows it; it decodes unless it has more tokens to compute."""

    request_class: RequestClass = THROUGHPUT
    remaining_tokens: int = 1
    context_tokens: int = 100
    tpot_s: float | None = None
    held_since_s: float | None = None


def latency(remaining_tokens: int = 1, tpot_s: float | None = None) -> Running:
    return Running(LATENCY, remaining_tokens, tpot_s=tpot_s)


def plan(
    running: Sequence[Running],
    waiting: Sequence[Running] = (),
    *,
    model: StepTimeModel | None = MODEL,
    now_s: float = 100.0,
    pacer: Pacer | None = None,
    must_admit: bool = False,
) -> StepPlan[Running]:
    return (pacer or Pacer()).plan(running, waiting, model, now_s, must_admit=must_admit)


def places(requests: Sequence[Running], among: Sequence[Running]) -> list[int]:
    """Return which requests these are; equal ones are told apart."""
    return [next(i for i, each in enumerate(among) if each is request) for request in requests]


def granted(order: Sequence[Running], max_tokens: int) -> list[int]:
    """Return what the engine gives to each, greedily and in order."""
    tokens = []
    for request in order:
        tokens.append(min(max(1, request.remaining_tokens), max_tokens))
        max_tokens -= tokens[-1]
    return tokens


def tokens_of(made: StepPlan[Running]) -> int:
    assert made.max_tokens is not None
    return made.max_tokens


def work_of(order: Sequence[Running], tokens: Sequence[int]) -> StepWork:
    work = StepWork()
    for request, number in zip(order, tokens, strict=True):
        if request.remaining_tokens <= 1 and number:
            work += StepWork.decode(request.context_tokens)
        else:
            work += StepWork.prefill(number, request.context_tokens)
    return work


# --- without latency-sensitive requests, or without a model ---------------------------------------


@pytest.mark.parametrize(
    ("running", "waiting", "model"),
    [
        ([Running(FILL), Running(GROUP, 500), Running()], [], MODEL),
        ([Running(), latency(), Running(FILL, 500)], [], None),
        ([Running(), Running(GROUP)], [latency(100)], None),
        ([], [], MODEL),
    ],
)
def test_engine_does_as_it_would_without_pacing(
    running: list[Running], waiting: list[Running], model: StepTimeModel | None
) -> None:
    for request in running:
        request.held_since_s = 1.0
    made = plan(running, waiting, model=model)
    assert made == StepPlan(running, [], None, admits=FILL)
    assert all(request.held_since_s is None for request in running)


# --- task groups ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "waiting", "order", "max_tokens"),
    [
        # Others may come in as far as the step takes twice its time.
        ([Running(GROUP), latency()], [], [1, 0], 2 + 125),
        ([Running(GROUP, 5000), latency(), latency(300)], [], [1, 2, 0], 1 + 5300),
        ([Running(GROUP, 5000)], [latency(40)], [0], 5040),
        ([Running(GROUP, 5000), Running(GROUP), latency()], [latency(40)], [2, 1, 0], 2 + 5040),
    ],
    ids=["decodes", "prompts, the more urgent first", "beside one that comes", "all of it"],
)
def test_task_group_is_not_held_where_no_target_is_asked_for(
    running: list[Running], waiting: list[Running], order: list[int], max_tokens: int
) -> None:
    made = plan(running, waiting)
    assert (places(made.order, running), made.held) == (order, [])
    assert made.max_tokens == max_tokens


@pytest.mark.parametrize("where", ["runs", "waits"])
def test_task_group_is_held_for_a_target(where: str) -> None:
    group, tight = Running(GROUP, 5000), latency(tpot_s=TIGHT)
    made = plan([group, tight] if where == "runs" else [group], [] if where == "runs" else [tight])
    assert made.held == [group]


@pytest.mark.parametrize(
    ("tpot_s", "admits", "max_tokens"), [(None, GROUP, None), (TIGHT, LATENCY, 1)]
)
def test_task_group_that_comes_gets_the_step_unless_a_target_is_asked_for(
    tpot_s: float | None, admits: RequestClass, max_tokens: int | None
) -> None:
    running = [latency(tpot_s=tpot_s), Running(THROUGHPUT, 50)]
    made = Pacer().plan(running, [], MODEL, 100.0, group_comes=True)
    assert (made.admits, made.max_tokens) == (admits, max_tokens)
    assert places(made.held, running) == [1]


@pytest.mark.parametrize("must_admit", [False, True])
def test_bulk_work_whose_turn_it_is_gets_a_chunk_before_a_task_group_that_comes(
    must_admit: bool,
) -> None:
    running = [latency(), Running(THROUGHPUT, 5000, held_since_s=None if must_admit else 90.0)]
    made = Pacer().plan(running, [], MODEL, 100.0, group_comes=True, must_admit=must_admit)
    # Twice a step of 11.5 ms.
    assert made.max_tokens == 1 + 115


def test_bulk_work_is_held_for_a_task_group_beside_a_latency_request() -> None:
    running = [Running(GROUP), latency(), *(Running() for _ in range(20))]
    made = plan(running)
    # Twice a step of 12.5 ms.
    assert len(made.held) == 20 - 12


# --- the target -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tpots_s", "num_decodes"),
    [
        ([None], 11),  # 2 x 11.5 ms leaves 11.5 ms
        ([0.016], 4),
        ([1.0], 20),
        ([0.015, None], 2),  # 12.5 ms and 2.5 ms; the default would leave 12.5 ms
        ([0.1, None], 12),  # the default is stricter than the target of the first
        ([TIGHT], 0),
        ([0.005], 11),  # a target that cannot be reached is none
    ],
)
def test_target_limits_the_decodes_of_others(tpots_s: list[float | None], num_decodes: int) -> None:
    others = [Running() for _ in range(20)]
    made = plan([*others, *(latency(tpot_s=tpot_s) for tpot_s in tpots_s)])
    assert len(made.order) == len(tpots_s) + num_decodes
    assert made.order[0].request_class is LATENCY
    assert len(made.held) == 20 - num_decodes
    assert all(request.held_since_s == 100.0 for request in made.held)


def test_context_of_a_decode_counts() -> None:
    model = StepTimeModel(0.01, 1e-4, 0.0, 1e-5, 0.0, num_samples=100, error=0.0)
    running = [latency(tpot_s=0.0145), Running(context_tokens=500), Running(context_tokens=300)]
    made = plan(running, model=model)
    assert places(made.order, running) == [0, 2]


# --- who comes first ------------------------------------------------------------------------------


def test_classes_and_then_longest_held_first() -> None:
    running = [
        Running(FILL, held_since_s=98.5),
        Running(held_since_s=99.5),
        Running(held_since_s=99.0),
        Running(),
        Running(GROUP),
        latency(tpot_s=0.014),
    ]
    made = plan(running)
    assert places(made.order, running) == [5, 4, 2]
    assert places(made.held, running) == [1, 3, 0]
    assert [each.held_since_s for each in running] == [98.5, 99.5, None, 100.0, None, None]


@pytest.mark.parametrize(
    ("remaining", "allowed"),
    [
        ([500], [90]),  # 9 ms
        ([60, 20], [60, 0]),  # what is left for the second is less than it needs, and small
        ([40, 500], [40, 50]),
        ([40, 50], [40, 50]),
        ([60, 500], [60, 0]),  # 30 tokens would fit
        ([500, 10], [90, 0]),  # only the last may be cut short
    ],
)
def test_prefill_of_others_gets_what_still_fits(remaining: list[int], allowed: list[int]) -> None:
    running = [*(Running(GROUP, each) for each in remaining), latency(tpot_s=0.02055)]
    if remaining == [60, 20]:
        running[-1].tpot_s = 0.019
    made = plan(running)
    assert tokens_of(made) >= 1 + sum(allowed)
    granted_tokens = granted(made.order, tokens_of(made))
    got = dict(zip(places(made.order, running), granted_tokens, strict=True))
    assert [got.get(number, 0) for number in range(len(remaining))] == allowed


def test_decodes_of_others_go_before_prefill_of_any() -> None:
    running = [Running(GROUP, 500), Running(FILL), latency(tpot_s=0.02255)]
    made = plan(running)
    assert places(made.order, running) == [2, 1, 0]
    assert made.max_tokens == 1 + 1 + 100


# --- prefill of latency-sensitive requests --------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "waiting", "max_tokens"),
    [
        ([500], [], 1 + 100),  # 10 ms are left
        ([40], [500], 1 + 40 + 60),
        ([], [500], 1 + 100),
        ([40], [30], 1 + 70),
        ([80], [500], 1 + 80),  # 20 tokens are too few for the next
    ],
)
def test_prefill_beside_latency_decodes_keeps_their_target(
    prompts: list[int], waiting: list[int], max_tokens: int
) -> None:
    running = [Running(GROUP, 500), *map(latency, prompts), latency(tpot_s=0.02155)]
    made = plan(running, [*map(latency, waiting)])
    assert made.max_tokens == max_tokens
    assert places(made.order, running) == [len(prompts) + 1, *range(1, len(prompts) + 1)]
    assert places(made.held, running) == [0]
    assert made.admits is LATENCY


def test_prefill_beside_latency_decodes_gets_a_chunk_in_any_case() -> None:
    made = plan([latency(500), latency(tpot_s=TIGHT)])
    assert made.max_tokens == 1 + MIN_CHUNK


def test_target_of_a_prompt_counts_once_it_decodes() -> None:
    made = plan([latency(500, tpot_s=TIGHT), latency(tpot_s=0.02155)])
    assert made.max_tokens == 1 + 100


def test_prefill_goes_before_decodes_of_others() -> None:
    running = [Running(), latency(500), latency(tpot_s=0.02155)]
    made = plan(running)
    assert places(made.held, running) == [0]
    assert made.max_tokens == 1 + 100


@pytest.mark.parametrize(
    ("prompts", "waiting", "tpots_s", "num_tokens"),
    [
        ([500], [], [None], 500),
        ([500, 40], [700], [None, None], 1240),
        ([], [5000], [None], 5000),
        ([500], [700], [None, 0.02155], 90),  # the decode that has none takes 1 ms of it
        ([500], [700], [0.1, TIGHT_FOR_TWO], MIN_CHUNK),
    ],
)
def test_prefill_is_whole_unless_a_decode_beside_it_has_a_target(
    prompts: list[int], waiting: list[int], tpots_s: list[float | None], num_tokens: int
) -> None:
    decodes = [latency(tpot_s=tpot_s) for tpot_s in tpots_s]
    running = [Running(THROUGHPUT, 500), *map(latency, prompts), *decodes]
    made = plan(running, [latency(each, tpot_s=TIGHT) for each in waiting])
    assert made.max_tokens == len(decodes) + num_tokens
    assert places(made.held, running) == [0]
    assert made.admits is LATENCY


def test_whole_prefill_takes_nothing_from_the_decodes_of_others() -> None:
    running = [*(Running() for _ in range(20)), latency(500), latency()]
    made = plan(running)
    assert places(made.order, running) == [21, *range(11), 20]
    assert made.max_tokens == 1 + 11 + 500


@pytest.mark.parametrize("is_admitted", [False, True])
def test_prefill_is_unlimited_without_latency_decodes(is_admitted: bool) -> None:
    prompt = latency(5000, tpot_s=0.014)
    running = [Running(), Running(), Running(), Running(FILL, 50)]
    made = plan([*running, prompt] if is_admitted else running, [] if is_admitted else [prompt])
    assert made.max_tokens == 2 + 5000
    assert made.order == [*running[:2], *([prompt] if is_admitted else [])]
    assert made.held == running[2:]
    assert made.admits is LATENCY


# --- what was held for too long -------------------------------------------------------------------


def test_longest_held_decode_is_let_in_regardless() -> None:
    running = [
        latency(tpot_s=TIGHT),
        Running(held_since_s=90.0),
        Running(FILL, held_since_s=80.0),
        Running(held_since_s=99.0),
    ]
    made = plan(running)
    assert places(made.order, running) == [0, 2]
    assert running[2].held_since_s is None
    assert made.max_tokens == 2


def test_overdue_prefill_gets_the_smallest_chunk_in_every_second_step() -> None:
    pacer = Pacer()
    prompts = [Running(held_since_s=90.0 + number, remaining_tokens=500) for number in range(3)]
    running = [latency(tpot_s=TIGHT), *prompts]
    plans = [plan(running, pacer=pacer) for _ in range(4)]
    assert [places(made.order, running) for made in plans] == [[0, 1], [0], [0, 2], [0]]
    assert [made.max_tokens for made in plans] == [1 + MIN_CHUNK, 1, 1 + MIN_CHUNK, 1]


@pytest.mark.parametrize("decodes", [False, True])
def test_overdue_prefill_takes_the_turn_of_latency_prefill(decodes: bool) -> None:
    pacer = Pacer()
    running = [Running(THROUGHPUT, 500, held_since_s=90.0), latency(2000)]
    running += [latency(tpot_s=TIGHT)] if decodes else []
    first, second = (plan(running, pacer=pacer) for _ in range(2))
    num_decodes = int(decodes)
    assert [request.remaining_tokens for request in first.order] == [1, 500, 2000][-2 - decodes :]
    assert granted(first.order, tokens_of(first))[-1] == 0
    assert granted(second.order, tokens_of(second))[num_decodes] == (MIN_CHUNK if decodes else 2000)
    assert places(second.held, running) == [0]


def test_small_overdue_prefill_leaves_latency_prefill_its_chunk() -> None:
    running = [Running(GROUP, 20, held_since_s=90.0), latency(500), latency(tpot_s=0.02155)]
    made = plan(running)
    assert granted(made.order, tokens_of(made)) == [1, 20, 80]


def test_waiting_requests_that_find_no_room_do_not_stop_the_engine() -> None:
    pacer = Pacer()
    running = [Running(THROUGHPUT, 500), Running(FILL, 500)]
    plans = [plan(running, [latency(100)], pacer=pacer, now_s=100.0 + i) for i in range(4)]
    assert [len(made.order) for made in plans] == [0, 1, 0, 1]
    assert all(tokens_of(made) >= MIN_CHUNK for made in plans)


# --- admission ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "tpot_s", "max_tokens"),
    [
        ([], 0.02155, 1 + 100),
        ([Running()], 0.02155, 2 + 90),
        ([Running(remaining_tokens=50)], 0.02155, 51 + 50),
        ([Running(remaining_tokens=80)], 0.02155, None),  # 20 more would fit
        ([Running(remaining_tokens=500)], 0.02155, None),
        ([Running(), Running()], 0.0126, None),  # one is held
        ([], 0.0146, None),
    ],
)
def test_others_are_admitted_if_a_chunk_still_fits(
    others: list[Running], tpot_s: float, max_tokens: int | None
) -> None:
    made = plan([latency(tpot_s=tpot_s), *others])
    assert (made.admits is FILL) is (max_tokens is not None)
    if max_tokens is not None:
        assert made.max_tokens == max_tokens


def test_others_are_admitted_after_a_while_in_any_case() -> None:
    pacer = Pacer()
    running = [latency(tpot_s=TIGHT)]
    times_s = [100.0, 101.0, 102.5, 102.6, 104.5, 104.7]
    plans = [plan(running, pacer=pacer, now_s=now_s) for now_s in times_s]
    assert [made.admits is FILL for made in plans] == [False, False, True, False, False, True]
    assert plans[2].max_tokens == 1 + MIN_CHUNK


def test_nobody_is_admitted_in_addition_to_an_overdue_request() -> None:
    pacer = Pacer()
    running = [latency(tpot_s=TIGHT), Running()]
    plans = [plan(running, pacer=pacer, now_s=now_s) for now_s in (100.0, 102.5)]
    assert [len(made.order) for made in plans] == [1, 2]
    assert not any(made.admits is FILL for made in plans)


#: Case -> running and waiting requests, and the tokens of the step, with a chunk for the one that
#: must be admitted.
MUST_ADMIT: dict[str, tuple[list[Running], list[Running], int]] = {
    "alone": ([latency(tpot_s=0.02155)], [], 1 + 100),
    "over the target": ([latency(tpot_s=TIGHT)], [], 1 + MIN_CHUNK),
    "decodes are held": (
        [latency(tpot_s=0.0126), Running(), Running()],
        [],
        2 + MIN_CHUNK,
    ),
    "before the prefill of others": (
        [latency(tpot_s=0.02155), Running(GROUP, 500), Running(remaining_tokens=20)],
        [],
        1 + 100,
    ),
    "beside an overdue decode": (
        [latency(tpot_s=TIGHT), Running(held_since_s=90.0)],
        [],
        2 + MIN_CHUNK,
    ),
    "beside prompts that are whole": ([latency(), latency(500)], [latency(300)], 801 + 115),
    "beside the rest of a prompt": ([latency(tpot_s=TIGHT), latency(20)], [], 21 + MIN_CHUNK),
}


@pytest.mark.parametrize("case", MUST_ADMIT)
def test_one_who_must_be_admitted_gets_a_chunk(case: str) -> None:
    running, waiting, max_tokens = MUST_ADMIT[case]
    made = plan([replace(each) for each in running], waiting, must_admit=True)
    assert made.admits is FILL
    assert made.max_tokens == max_tokens
    assert all(each.remaining_tokens <= 1 or each.request_class is LATENCY for each in made.order)


@pytest.mark.parametrize("must_admit", [False, True])
def test_without_pacing_it_makes_no_difference_who_must_be_admitted(must_admit: bool) -> None:
    running = [Running(GROUP, 500), Running()]
    assert plan(running, must_admit=must_admit) == StepPlan(running, [], None, admits=FILL)


def test_overdue_prefill_and_one_who_must_be_admitted_take_turns() -> None:
    pacer = Pacer()
    running = [latency(tpot_s=TIGHT), Running(remaining_tokens=500, held_since_s=90.0)]
    plans = []
    for _ in range(4):
        plans.append(plan(running, pacer=pacer, must_admit=True))
        running[1].held_since_s = 90.0
    assert [places(made.order, running) for made in plans] == [[0, 1], [0], [0, 1], [0]]
    assert [made.admits is FILL for made in plans] == [False, True, False, True]
    assert [made.max_tokens for made in plans] == [1 + MIN_CHUNK] * 4


# --- properties -----------------------------------------------------------------------------------

requests = st.builds(
    Running,
    request_class=st.sampled_from(RequestClass),
    remaining_tokens=st.just(1) | st.integers(0, 3000),
    context_tokens=st.integers(0, 8000),
    tpot_s=st.none() | st.floats(0.0, 0.1),
    held_since_s=st.none() | st.floats(90.0, 100.0),
)
waiting_requests = st.builds(
    Running,
    request_class=st.just(LATENCY),
    remaining_tokens=st.integers(0, 3000),
    context_tokens=st.integers(0, 8000),
    tpot_s=st.none() | st.floats(0.0, 0.1),
)
costs = st.just(0.0) | st.floats(1e-7, 1e-3)
models = st.builds(
    StepTimeModel,
    st.floats(0.0, 0.05),
    costs,
    costs,
    costs.map(lambda cost_s: cost_s / 1000),
    costs.map(lambda cost_s: cost_s / 10_000),
    st.just(100),
    st.just(0.0),
)


def served_of(running: Sequence[Running], waiting: Sequence[Running] = ()) -> RequestClass:
    """Return the least urgent class that is never held."""
    latency_requests = [x for x in (*running, *waiting) if x.request_class is LATENCY]
    return LATENCY if any(x.tpot_s is not None for x in latency_requests) else GROUP


def test_nothing_new_is_admitted_while_prefill_ahead_of_need_finds_no_room() -> None:
    # Seven tokens of context make 26 more of it dearer than the first 32 of a new prompt.
    decodes = [Running(LATENCY, 1, context) for context in (0, 0, 0, 89)]
    fill = Running(FILL, 26, 7)
    model = StepTimeModel(0.0, 0.0, 0.0, 8.123003710365548e-07, 1.405092387e-08, 100, 0.0)
    made = plan([*decodes, fill], [], model=model)
    assert (made.held, made.admits) == ([fill], LATENCY)


@examples(500)
@given(st.lists(requests, max_size=20), st.lists(waiting_requests, max_size=3), models)
def test_plan_is_sound(
    running: list[Running], waiting: list[Running], model: StepTimeModel
) -> None:
    made = plan(running, waiting, model=model)
    assert sorted(places([*made.order, *made.held], running)) == list(range(len(running)))
    served = served_of(running, waiting)
    assert all(each.request_class > served for each in made.held)
    assert all(each.held_since_s is None for each in made.order)
    assert all(each.held_since_s is not None for each in made.held)
    assert not (made.admits is FILL and made.held)
    is_paced = bool(waiting) or any(each.request_class is LATENCY for each in running)
    assert (made.max_tokens is not None) is is_paced
    if not is_paced:
        assert places(made.order, running) == list(range(len(running)))
        return
    tokens = granted(made.order, tokens_of(made))
    assert tokens_of(made) >= 1
    paired = zip(made.order, tokens, strict=True)
    assert all(number or each.request_class <= served for each, number in paired)
    decodes = [each.remaining_tokens <= 1 for each in made.order]
    assert decodes == sorted(decodes, reverse=True)


@examples(500)
@given(st.lists(requests, max_size=20), models, st.booleans())
def test_step_keeps_its_target(
    running: list[Running], model: StepTimeModel, must_admit: bool
) -> None:
    """Beyond the target are only an overdue request, a chunk for a new one, and latency prefill.

    The latter is one smallest chunk if a latency decode has a target, or else all there is, that
    of task groups included.
    """
    if not any(each.request_class is LATENCY and each.remaining_tokens <= 1 for each in running):
        running = [latency(), *running]
    served = served_of(running)
    decoding = [
        each for each in running if each.request_class <= served and each.remaining_tokens <= 1
    ]
    base_s = model.predict_s(work_of(decoding, [1] * len(decoding)))
    target_s = min(
        each.tpot_s if each.tpot_s is not None and each.tpot_s >= base_s else 2 * base_s
        for each in decoding
    )
    context_tokens = max(each.context_tokens for each in running)
    chunk_s = model.prefill_cost_s(MIN_CHUNK, context_tokens)
    prefilling = [
        each for each in running if each.request_class <= served and each.remaining_tokens > 1
    ]
    if any(each.tpot_s is not None for each in decoding):
        forced_s = chunk_s if prefilling else 0.0
    else:
        forced_s = sum(
            model.prefill_cost_s(each.remaining_tokens, each.context_tokens) for each in prefilling
        )
    forced_s += chunk_s if must_admit else 0.0
    if any((each.held_since_s or 100.0) < 100.0 - MAX_HOLD_S for each in running):
        forced_s += max(chunk_s, model.decode_cost_s(context_tokens))
    made = plan(running, model=model, must_admit=must_admit)
    tokens = granted(made.order, tokens_of(made))
    # What is left is for requests that are admitted.
    work = work_of(made.order, tokens) + StepWork.prefill(tokens_of(made) - sum(tokens), 0)
    assert model.predict_s(work) <= (max(base_s, target_s) + forced_s) * (1 + 1e-9)


@examples(60, shrinks=False)
@given(st.integers(0, 2**32), models, st.none() | st.floats(0.0, 0.05))
def test_every_held_request_gets_in_within_bounded_time(
    seed: int, model: StepTimeModel, tpot_s: float | None
) -> None:
    """Latency-sensitive prompts come all the time; nobody else finishes, but everybody gets on.

    But for prompts ahead of need: they get what is spare, or nothing.
    """
    rng = random.Random(seed)
    pacer = Pacer()
    others = [
        Running(rng.choice([GROUP, THROUGHPUT, FILL]), rng.choice([1, 1, 10**9]))
        for _ in range(rng.randint(1, 12))
    ]
    chats = [latency(tpot_s=tpot_s) for _ in range(rng.randint(0, 3))]
    has_room = rng.random() < 0.5
    last_s = [0.0] * len(others)
    now_s = 0.0
    while now_s < 12.0:
        waiting = [latency(rng.randint(1, 400), tpot_s)] if rng.random() < 0.7 else []
        running = [*chats, *others]
        made = plan(running, waiting, model=model, now_s=now_s, pacer=pacer)
        if made.max_tokens is None:  # nobody is held
            last_s = [now_s] * len(others)
        tokens = granted(made.order, made.max_tokens or 0)
        for request, number in zip(made.order, tokens, strict=True):
            if request.request_class is not LATENCY and number:
                last_s[places([request], others)[0]] = now_s
            elif request.remaining_tokens > 1:
                request.remaining_tokens = max(1, request.remaining_tokens - number)
        if has_room:
            chats = [*chats, *waiting][-4:]
        now_s += max(0.02, min(0.1, model.predict_s(work_of(made.order, tokens))))
        needed = [
            gone_on_s
            for gone_on_s, request in zip(last_s, others, strict=True)
            if request.request_class is not FILL or request.remaining_tokens == 1
        ]
        assert now_s - min(needed, default=now_s) < MAX_HOLD_S + 0.1 * (2 * len(others) + 3)


# --- ahead of need --------------------------------------------------------------------------------


def fill(remaining_tokens: int = 1000) -> Running:
    return Running(FILL, remaining_tokens)


def test_prompts_ahead_of_need_get_what_is_spare_and_no_more() -> None:
    # 10 ms with the latency request alone, so 1 ms is spare: 100 tokens.
    model = StepTimeModel(0.01, 1e-5, 0.0, 0.0, 0.0, 100, 0.0)
    made = plan([latency(1), fill()], [], model=model)
    assert made.held == []
    assert made.max_tokens == 1 + 100


def test_prompts_ahead_of_need_are_held_where_nothing_is_spare() -> None:
    model = StepTimeModel(0.002, 2e-5, 0.0, 0.0, 0.0, 100, 0.0)
    ahead = fill()
    pacer = Pacer()
    for now_s in (0.0, 10.0, 20.0):
        made = plan([latency(1), ahead], [], model=model, now_s=now_s, pacer=pacer)
        assert made.held == [ahead]


def test_prompts_ahead_of_need_wait_for_others_that_are_held() -> None:
    model = StepTimeModel(0.01, 1e-6, 0.0, 1e-5, 0.0, 100, 0.0)
    other, ahead = Running(THROUGHPUT, 1, context_tokens=10_000), fill()
    made = plan([latency(1), other, ahead], [], model=model)
    assert made.held == [other, ahead]


@pytest.mark.parametrize(("next_is_fill", "admits"), [(False, True), (True, False)])
def test_prompts_ahead_of_need_are_admitted_only_to_what_is_spare(
    next_is_fill: bool, admits: bool
) -> None:
    model = StepTimeModel(0.002, 2e-5, 0.0, 0.0, 0.0, 100, 0.0)
    made = Pacer().plan([latency(1)], [], model, 0.0, next_is_fill=next_is_fill)
    assert (made.admits is FILL) is admits


def test_without_latency_work_prompts_ahead_of_need_are_not_held() -> None:
    model = StepTimeModel(0.002, 2e-5, 0.0, 0.0, 0.0, 100, 0.0)
    made = plan([Running(THROUGHPUT, 1), fill()], [], model=model)
    assert made.held == []
    assert made.max_tokens is None


def test_alone_prompts_ahead_of_need_go_on_in_short_steps() -> None:
    # A step of one decode takes 2 ms, so this one may compute for 8 ms.
    model = StepTimeModel(0.002, 2e-5, 0.0, 0.0, 0.0, 100, 0.0)
    made = Pacer().plan([fill()], [], model, 0.0, next_is_fill=True)
    assert made.max_tokens == 400
    assert made.admits is FILL


@pytest.mark.parametrize(
    ("running", "next_is_fill"), [([fill(), Running(THROUGHPUT, 1)], True), ([fill()], False)]
)
def test_beside_other_work_their_steps_are_not_short(
    running: list[Running], next_is_fill: bool
) -> None:
    model = StepTimeModel(0.002, 2e-5, 0.0, 0.0, 0.0, 100, 0.0)
    assert Pacer().plan(running, [], model, 0.0, next_is_fill=next_is_fill).max_tokens is None
