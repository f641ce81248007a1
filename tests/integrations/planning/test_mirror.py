"""The mirror follows the server through lists, choices and repetitions, under the same names."""

from __future__ import annotations

from parrot_backend.protocol import SplitLinesTransform
from parrot_integrations.planning.builder import PlanBuilder, PlannedProgram, Question
from parrot_integrations.planning.calls import CallOptions, ModelCall
from parrot_integrations.planning.mirror import Mirror
from parrot_integrations.planning.symbols import Symbol, SymbolicText

OPTIONS = CallOptions()


def asked(text: str) -> ModelCall:
    return ModelCall(OPTIONS, prompt=text)


def say(builder: PlanBuilder, text: str) -> SymbolicText:
    return builder.text_of(builder.call(asked(text), "llm"))


def mirror_of(program: PlannedProgram) -> Mirror:
    return Mirror.of(program.steps, program.constants, program.externals)


def claim(mirror: Mirror, text: str, value: str) -> str:
    """Find a call, learn its value, and return the name of its output."""
    match = mirror.find(asked(text))
    assert match is not None, text
    mirror.learn(match.call.output, value)
    return match.call.output


def test_a_map_over_a_list_that_is_known_has_its_instances_at_once() -> None:
    builder = PlanBuilder()
    lines = Symbol(builder.variable_of("- a\n- b", "text")).then(
        SplitLinesTransform(), is_list=True
    )
    joined = builder.map(lines, "map", lambda item: f"<{say(builder, f'One {item}')}>")
    assert joined.is_list
    mirror = mirror_of(builder.program())
    assert claim(mirror, "One b", "B") == "map:1:llm-out"
    assert claim(mirror, "One a", "A") == "map:0:llm-out"
    assert mirror.values[joined.variable] == '["<A>", "<B>"]'


def test_a_text_in_a_body_follows_from_its_item() -> None:
    builder = PlanBuilder()
    lines = Symbol(builder.variable_of("a\nb", "text")).then(SplitLinesTransform(), is_list=True)
    output = builder.map(lines, "map", lambda item: f"<{item}>")
    assert mirror_of(builder.program()).values[output.variable] == '["<a>", "<b>"]'


def test_a_map_over_generated_lines_expands_when_they_are_known() -> None:
    builder = PlanBuilder()
    made = say(builder, "List")
    lines = made.symbol.then(SplitLinesTransform(), is_list=True)
    builder.map(lines, "map", lambda item: say(builder, f"One {item}"))
    mirror = mirror_of(builder.program())
    assert mirror.num_calls == 1
    claim(mirror, "List", "1. x\n2. y")
    assert mirror.num_calls == 3
    assert mirror.find(asked("One z")) is None
    assert mirror.find(asked("One y")) is not None


def test_a_branch_goes_one_way() -> None:
    builder = PlanBuilder()
    made = say(builder, "Which")
    question = Question("contains", "yes")
    way = builder.branch(
        "branch",
        [(question, made, lambda: say(builder, f"Yes {made}"))],
        lambda: say(builder, "No"),
    )
    mirror = mirror_of(builder.program())
    assert mirror.find(asked("No")) is None
    claim(mirror, "Which", "oh yes")
    assert mirror.find(asked("No")) is None
    assert claim(mirror, "Yes oh yes", "good").startswith("branch:0:")
    assert mirror.values[way.variable] == "good"


def test_a_loop_ends_when_the_condition_holds() -> None:
    builder = PlanBuilder()
    until = (Question("contains", "done"), "text")
    output = builder.loop(
        "loop", {"text": "start"}, lambda state: {"text": say(builder, f"Next {state['text']}")},
        until, "text", 5,
    )  # fmt: skip
    mirror = mirror_of(builder.program())
    assert claim(mirror, "Next start", "one").startswith("loop:0:")
    assert claim(mirror, "Next one", "done").startswith("loop:1:")
    assert mirror.values[output.variable] == "done"
    assert mirror.find(asked("Next done")) is None


def test_a_list_that_is_too_long_for_the_server_is_not_followed() -> None:
    builder = PlanBuilder()
    made = say(builder, "List")
    lines = made.symbol.then(SplitLinesTransform(), is_list=True)
    builder.map(lines, "map", lambda item: say(builder, f"One {item}"))
    mirror = mirror_of(builder.program())
    claim(mirror, "List", "\n".join(f"n{i}" for i in range(257)))
    assert mirror.num_calls == 1
    assert mirror.find(asked("One n0")) is None
