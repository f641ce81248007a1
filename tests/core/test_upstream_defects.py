"""Defects of the code that the paper's authors published: each must stay away.

Numbers are those of that list. What concerns the server, the engines or the kernels is tested
there.
"""

from __future__ import annotations

from parrot_backend.core.commands import StartRequest
from parrot_backend.core.config import CoreConfig, SchedulerConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.ids import SessionId
from parrot_backend.core.prompt import Input, Output, PartKind, PromptPart, Segment, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.variable import VariableState
from parrot_backend.protocol import InputSegment, TextSegment, parse_template
from tests.core.audit import audited_driver
from tests.helpers.builders import (
    make_call,
    make_engine,
    make_step,
    make_steps,
    make_wanted,
    read,
    var,
    write,
)
from tests.helpers.core_driver import of_type, started


def segments_of(template: str) -> tuple[Segment, ...]:
    """Read a template as the server does."""
    found: list[Segment] = []
    for segment in parse_template(template):
        if isinstance(segment, TextSegment):
            found.append(Text(segment.text))
        elif isinstance(segment, InputSegment):
            found.append(Input(var(segment.variable)))
        else:
            found.append(Output(var(segment.variable), Sampling()))
    return tuple(found)


def const(text: str) -> PromptPart:
    return PromptPart(PartKind.CONSTANT, text)


# --- 1: functions of several outputs -------------------------------------------------------------

TELL_A_JOKE = "Tell a joke about {{input:topic}}: {{output:joke}}. Explain: {{output:explanation}}"


def test_1_second_output_has_all_text_before_it_in_its_prompt() -> None:
    driver = audited_driver(make_engine())
    driver.submit(
        make_call("tell_a_joke", *segments_of(TELL_A_JOKE)), variables={"topic": "parrots"}
    )
    driver.finish("joke", "Why did it", token_ids=(4, 5))
    assert driver.running[driver.attempt("explanation")].start.parts == (
        const("Tell a joke about "),
        PromptPart(PartKind.VALUE, "parrots"),
        const(": "),
        PromptPart(PartKind.VALUE, "Why did it", (4, 5)),
        const(". Explain: "),
    )


def test_1_first_output_is_generated_once() -> None:
    driver = audited_driver(make_engine())
    driver.submit(
        make_call("tell_a_joke", *segments_of(TELL_A_JOKE)), variables={"topic": "parrots"}
    )
    assert started(driver.finish("joke")) == ["tell_a_joke#1~1"]
    assert started(driver.finish("explanation")) == []


def test_1_function_of_three_outputs_gives_three_values() -> None:
    template = "{{input:task}} Code: {{output:code}} Test: {{output:test}} Note: {{output:note}}"
    driver = audited_driver(make_engine())
    driver.submit(make_call("snake", *segments_of(template)), variables={"task": "a snake game"})
    for name in ("code", "test", "note"):
        driver.finish(name, f"the {name}")
    assert [driver.variable(n).value for n in ("code", "test", "note")] == [
        "the code",
        "the test",
        "the note",
    ]


def test_1_output_before_an_input_is_legal() -> None:
    template = "Name: {{output:name}} of {{input:task}}: {{output:text}}"
    driver = audited_driver(make_engine())
    driver.submit(make_call("f", *segments_of(template)), variables={"task": None})
    driver.finish("name", "N")
    assert driver.running_outputs == []
    driver.set("task", "T")
    texts = [part.text for part in driver.running[driver.attempt("text")].start.parts]
    assert texts == ["Name: ", "N", " of ", "T", ": "]


# --- 2: maps under LATENCY are a group, with the capacity of throughput ------------------------


def test_2_maps_under_latency_are_no_latency_requests() -> None:
    driver = audited_driver(make_engine())
    maps = [f"m{i}" for i in range(10)]
    commands = driver.submit(
        *make_steps(*maps), make_step("r", *maps), wanted=[make_wanted("r", waiter="w")]
    )
    classes = {start.objective.objective_class for start in of_type(commands, StartRequest)}
    assert classes == {ObjectiveClass.TASK_GROUP}


def test_2_maps_under_latency_are_not_limited_to_the_latency_capacity() -> None:
    # Upstream ran four at a time. Each needs more than a third of the latency capacity.
    driver = audited_driver(make_engine(capacity_tokens=10_000, latency_capacity_tokens=1_000))
    maps = [make_step(f"m{i}", max_tokens=400) for i in range(16)]
    driver.submit(*maps, make_step("r", *(m.name for m in maps)), wanted=[make_wanted("r")])
    assert len(driver.running) == 16


def test_2_the_reduce_is_a_latency_request() -> None:
    driver = audited_driver(make_engine())
    driver.submit(*make_steps("a", "b", "r: a b"), wanted=[make_wanted("r")])
    driver.finish("a")
    commands = driver.finish("b")
    objective = of_type(commands, StartRequest)[0].objective
    assert objective.objective_class is ObjectiveClass.LATENCY


# --- 3: limits are kept, the engine with the most room is chosen ---------------------------------


def test_3_latency_capacity_is_kept() -> None:
    paper = CoreConfig(scheduler=SchedulerConfig(placement="paper"))
    engine = make_engine(capacity_tokens=10_000, latency_capacity_tokens=1_000)
    driver = audited_driver(engine, config=paper)
    for number in range(16):
        session = SessionId(f"s{number}")
        driver.submit(
            make_step("a", session=session, max_tokens=240),
            session=session,
            wanted=[make_wanted("a", session=session)],
        )
    assert len(driver.running) == 4


def test_3_request_goes_to_the_engine_with_the_most_room() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1"))
    driver.submit(make_step("a", max_tokens=500))
    driver.submit(make_step("b", max_tokens=5), is_new=False)
    assert [log.start.engine for log in driver.running.values()] == ["e0", "e1"]


def test_3_group_whose_members_already_run_places_only_the_rest() -> None:
    driver = audited_driver(make_engine())
    steps = make_steps("a", "b", "c: x", "r: a b c")
    driver.submit(*steps, variables={"x": None}, wanted=[make_wanted("r")])
    assert driver.running_outputs == ["a", "b"]
    assert started(driver.set("x", "1")) == ["c#0~1"]


def test_3_group_whose_members_have_finished_places_the_rest() -> None:
    driver = audited_driver(make_engine())
    steps = make_steps("a", "b: x", "r: a b")
    driver.submit(*steps, variables={"x": None}, wanted=[make_wanted("r")])
    driver.finish("a")
    assert started(driver.set("x", "1")) == ["b#0~1"]


def test_3_get_that_makes_running_calls_a_group_starts_nothing_twice() -> None:
    driver = audited_driver(make_engine(max_requests=2))
    driver.submit(*make_steps("a", "b", "c", "r: a b c"))
    assert started(driver.submit(is_new=False, wanted=[make_wanted("r")])) == []
    assert started(driver.finish("a")) == ["c#0~1"]


# --- 4: errors reach who waits, and stay where they are ------------------------------------------


def test_4_failure_reaches_who_waits() -> None:
    driver = audited_driver(make_engine())
    driver.submit(*make_steps("a", "b: a"), wanted=[make_wanted("b", waiter="w")])
    driver.fail("a")
    assert driver.answer("w").state is VariableState.FAILED


def test_4_failure_reaches_who_waits_later() -> None:
    driver = audited_driver(make_engine())
    driver.submit(*make_steps("a", "b: a"))
    driver.fail("a")
    driver.get("b", "w")
    assert driver.answer("w").state is VariableState.FAILED


def test_4_failure_does_not_spoil_the_session() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"))
    driver.fail("a")
    driver.submit(make_step("b"), is_new=False, wanted=[make_wanted("b", waiter="w")])
    driver.finish("b", "fine")
    assert driver.answer("w").value == "fine"


def test_4_failing_request_leaves_its_engine() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1"))
    driver.submit(make_step("a"))
    driver.fail("a")
    assert list(driver.coordinator.engines) == ["e0", "e1"]


def test_4_failing_engine_leaves_the_others() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1"))
    driver.submit(make_step("a"))
    driver.lose("e0")
    assert list(driver.coordinator.engines) == ["e1"]


def test_4_failed_request_is_tried_on_another_engine() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1"))
    driver.submit(make_step("a"), wanted=[make_wanted("a", waiter="w")])
    driver.fail("a", is_retryable=True)
    driver.finish("a", "value")
    assert driver.request("a").engine == "e1"
    assert driver.answer("w").value == "value"


def test_4_engine_that_hangs_cannot_hang_who_waits() -> None:
    driver = audited_driver(make_engine("e0"))
    driver.submit(make_step("a"), wanted=[make_wanted("a", waiter="w")])
    driver.run_until(1000.0)
    assert driver.answer("w").state is VariableState.FAILED


# --- 8: sampling ---------------------------------------------------------------------------------


def test_8_temperature_zero_reaches_the_engine() -> None:
    driver = audited_driver(make_engine())
    output = Output(var("a"), Sampling(temperature=0.0, seed=0))
    commands = driver.submit(make_call("c", "p", output))
    sampling = of_type(commands, StartRequest)[0].sampling
    assert (sampling.temperature, sampling.seed) == (0.0, 0)


# --- 10: what is finished is forgotten in time ---------------------------------------------------


def test_10_finished_requests_take_no_room() -> None:
    driver = audited_driver(make_engine())
    for number in range(20):
        driver.submit(make_step(f"a{number}"), is_new=number == 0)
        driver.finish(f"a{number}")
    engine = next(iter(driver.coordinator.engines.values()))
    assert (engine.used_tokens, engine.running) == (0, {})
    assert driver.coordinator.num_unfinished_calls == 0


# --- 3.3: the syntax of the paper ----------------------------------------------------------------


def test_input_and_output_of_a_template_are_told_apart() -> None:
    found = segments_of("Code of {{input:task}}: {{output:code}}")
    code = write("code", max_tokens=256)
    assert found == (Text("Code of "), read("task"), Text(": "), code)
