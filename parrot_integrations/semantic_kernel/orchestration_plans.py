"""Plans of orchestrations: a real orchestration of shadows, run without a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from semantic_kernel.agents import Agent, ChatCompletionAgent
from semantic_kernel.agents.orchestration.orchestration_base import (
    DefaultTypeAlias,
    OrchestrationBase,
)

from parrot_integrations.planning.annotations import annotated, parrot_session
from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.plan import Plan, PlanTerms
from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.semantic_kernel.invocations import Invocation
from parrot_integrations.semantic_kernel.orchestration_runs import Labels
from parrot_integrations.semantic_kernel.shadow import quietly
from parrot_integrations.semantic_kernel.shadow_agents import Recording, shadows_of
from parrot_integrations.semantic_kernel.trace_runtime import TraceRuntime

#: What a plan is worth tracing for: one call goes by itself in one submit anyway.
_MIN_CALLS = 2
_GENERATED_NAME = re.compile(r"_[0-9a-f]{32}$")

#: A span that samplers leave out, and what is below it.
_UNSEEN = trace.NonRecordingSpan(
    trace.SpanContext(trace_id=1, span_id=1, is_remote=False, trace_flags=trace.TraceFlags(0))
)

#: Makes the framework's own orchestration of these members.
MakeSymbolic = Callable[[list[Any]], OrchestrationBase[Any, Any]]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What is known of an orchestration before it begins.

    Attributes:
        plan: Its plan.
        root: Has the invocations of functions in the agents' instructions.
    """

    plan: Plan
    root: Invocation


def labels_of(name: str) -> Labels:
    """Return how the calls of an orchestration are annotated; blocks around it come first."""
    told = annotated()
    return Labels(told.app, told.session or name, _GENERATED_NAME.sub("", name))


async def plan_of(
    members: list[Any], make: MakeSymbolic, task: DefaultTypeAlias, labels: Labels
) -> Foreseen:
    """Return the plan of an orchestration; without calls, but with the reason, if there is none.

    Nothing is sent, and nothing of the user's runs.

    Args:
        members: The user's agents.
        make: Makes the framework's own orchestration of their shadows.
        task: What the orchestration is about to be asked.
        labels: How its calls are annotated.
    """
    recording = Recording()
    try:
        shadows = shadows_of([_plannable(member) for member in members], recording)
        with (
            quietly(),
            trace.use_span(_UNSEEN),
            parrot_session(
                app=labels.app,
                session=labels.session,
                metadata={"orchestration": labels.orchestration},
            ),
        ):
            await _run(make(shadows), task, recording)
    except CannotPlan as exc:
        recording.refuse(labels.orchestration, str(exc))
    if recording.refusal is None and recording.builder.num_calls < _MIN_CALLS:
        recording.refuse(labels.orchestration, "one call gains nothing by a plan")
    if recording.refusal is not None:
        return no_plan(*recording.refusal)
    assert recording.terms is not None, "there are calls"
    terms = PlanTerms(
        app=recording.terms.app or labels.orchestration,
        metadata=recording.terms.metadata,
        criteria=recording.terms.criteria,
    )
    plan = Plan(recording.builder.program(), recording.connection, terms)
    return Foreseen(plan, recording.root)


def no_plan(where: str, why: str) -> Foreseen:
    """Return a plan of nothing, with the reason."""
    builder = PlanBuilder()
    builder.cut(where, why)
    return Foreseen(Plan(builder.program(), None, PlanTerms()), Invocation())


async def _run(
    orchestration: OrchestrationBase[Any, Any], task: DefaultTypeAlias, recording: Recording
) -> None:
    runtime = TraceRuntime()
    result = await orchestration.invoke(task, runtime)  # type: ignore[arg-type]
    if result.background_task is not None:
        await result.background_task
    await runtime.run(lambda: recording.refusal is None)


def _plannable(member: Agent | OrchestrationBase[Any, Any]) -> ChatCompletionAgent:
    if type(member) is not ChatCompletionAgent:
        name = getattr(member, "name", type(member).__name__)
        raise CannotPlan(f"{name} is a {type(member).__name__}, not just a ChatCompletionAgent")
    return member
