"""Core to wire: sessions, variables and answers in, reply models out. Pure; reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from parrot_backend import protocol as wire
from parrot_backend.core.call_overhead import CallOverhead
from parrot_backend.core.chat import OutputDetails, TokenLogprob
from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.control import ControlNode
from parrot_backend.core.discovery.found import Found
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.events import EngineInfo, RequestUsage
from parrot_backend.core.ids import EngineId, name_of
from parrot_backend.core.nodes import Node, Request
from parrot_backend.core.output_forecast import OutputForecast
from parrot_backend.core.pruning import PRUNED
from parrot_backend.core.session import Session
from parrot_backend.core.variable import Variable
from parrot_backend.engines.base import EngineLoad
from parrot_backend.errors import Failure, ParrotError


def variable_to_view(variable: Variable) -> wire.VariableView:
    """Return a variable as clients see it now."""
    return wire.VariableView(
        id=variable.id,
        name=variable.name,
        state=variable.state.value,
        value=variable.value,
        error=_failure(variable.failure),
        usage=_usage(variable.usage),
        finish_reason=variable.finish_reason,
        **_details(variable.details),
    )


def answer_to_view(answer: AnswerWaiter) -> wire.VariableView:
    """Return a settled variable; its session may be gone by now."""
    return wire.VariableView(
        id=answer.variable,
        name=name_of(answer.variable),
        state=answer.state.value,
        value=answer.value,
        error=_failure(answer.failure),
        usage=_usage(answer.usage),
        finish_reason=answer.finish_reason,
        **_details(answer.details),
    )


def session_to_view(session: Session, now_s: float) -> wire.SessionView:
    """Return a session with its whole graph, nodes in topological order."""
    nodes = sorted(session.graph.nodes.values(), key=lambda node: node.index)
    return wire.SessionView(
        id=session.id,
        app=session.app,
        metadata=dict(session.metadata),
        state="closed" if session.is_closed else "open",
        age_s=now_s - session.created_s,
        variables=tuple(variable_to_view(v) for v in session.graph.variables.values()),
        nodes=tuple(
            node_to_view(node, session.graph.variables[node.output], session.created_s)
            for node in nodes
        ),
    )


def node_to_view(node: Node, output: Variable, opened_s: float) -> wire.NodeView:
    """Return a node that makes ``output``; its times count from ``opened_s``."""

    def since_opening(at_s: float | None) -> float | None:
        return None if at_s is None else at_s - opened_s

    common = wire.NodeView(
        id=node.id,
        kind="transform",
        state="pruned" if _is_pruned(output) else node.state.value,
        inputs=tuple(name_of(used) for used in node.inputs),
        output=name_of(node.output),
        created_s=node.created_s - opened_s,
        ready_s=since_opening(node.ready_s),
        finished_s=since_opening(node.finished_s),
    )
    if isinstance(node, ControlNode):
        is_at_work = node.ready_s is not None and not node.has_ended
        state = "running" if is_at_work else common.state
        return common.model_copy(update={"kind": node.kind, "state": state})
    if not isinstance(node, Request):
        return common
    return common.model_copy(
        update={
            "kind": "request",
            "model": node.model,
            "stage": node.stage,
            "objective": node.objective.objective_class.name.lower(),
            "group": node.objective.group,
            "engine": node.engine,
            "attempts": node.attempts,
            "reason": "nobody can want it" if _is_pruned(output) else node.reason,
            "placed_s": since_opening(node.placed_s),
            "first_token_s": since_opening(node.first_token_s),
            "engine_s": None if node.usage is None else node.usage.engine_s,
            "usage": _usage(node.usage),
            "found": None if node.found is None else _found(node.found, node.forecast),
        }
    )


def _is_pruned(output: Variable) -> bool:
    return output.failure is not None and output.failure.code == PRUNED


def _found(found: Found, forecast: OutputForecast | None) -> wire.FoundView:
    return wire.FoundView(
        reads=tuple(map(name_of, found.reads)),
        stage=found.stage,
        stages_to_come=found.stages_to_come,
        template=found.template,
        value_chars=found.value_chars,
        repeated_chars=found.repeated_chars,
        fresh_chars=found.fresh_chars,
        expected_tokens=None if forecast is None else forecast.high_tokens,
        kept_tokens=found.kept_tokens,
    )


def engines_to_models(engines: Iterable[EngineInfo], created_s: int) -> wire.ModelList:
    """Return the models of all live engines, each once, with its longest context."""
    longest: dict[str, int] = {}
    for info in engines:
        for model in info.models:
            longest[model] = max(longest.get(model, 0), info.max_model_len)
    return wire.ModelList(
        data=tuple(
            wire.ModelView(id=name, created=created_s, max_model_len=size)
            for name, size in longest.items()
        )
    )


def engines_to_views(
    engines: Iterable[EngineState],
    overhead_of: Callable[[EngineId], CallOverhead | None],
    loads: Mapping[EngineId, EngineLoad],
) -> wire.EngineList:
    """Return the live engines, with what they have learnt and counted of themselves.

    Args:
        engines: What the core knows of them.
        overhead_of: What calls take beside an engine's time.
        loads: What they said last of their load.
    """
    views = []
    for state in engines:
        overhead = overhead_of(state.id)
        views.append(
            wire.EngineView(
                id=state.id,
                models=state.info.models,
                max_model_len=state.info.max_model_len,
                max_requests=state.info.max_requests,
                capacity_tokens=state.info.capacity_tokens,
                latency_capacity_tokens=state.info.latency_capacity_tokens,
                running=len(state.running),
                block_tokens=state.info.block_tokens,
                max_step_tokens=state.info.max_step_tokens,
                call_overhead_s=None if overhead is None else overhead.lone_s,
                server_call_s=None if overhead is None else overhead.server_s,
                step_time=(
                    None
                    if state.step_time is None
                    else wire.StepTimeView(**asdict(state.step_time))
                ),
                shared_attention=_attention(loads.get(state.id)),
            )
        )
    return wire.EngineList(engines=tuple(views))


def _attention(load: EngineLoad | None) -> wire.SharedAttentionView | None:
    if load is None or load.attention is None:
        return None
    return wire.SharedAttentionView(**asdict(load.attention))


def error_to_reply(error: ParrotError) -> wire.ErrorReply:
    """Return the body of an error reply."""
    return wire.ErrorReply(
        error=wire.ErrorBody(code=error.code, message=error.message, context=error.context)
    )


def _failure(failure: Failure | None) -> wire.FailureView | None:
    if failure is None:
        return None
    return wire.FailureView(
        code=failure.code, message=failure.message, origin=failure.origin, path=failure.path
    )


def _usage(usage: RequestUsage | None) -> wire.Usage | None:
    if usage is None:
        return None
    return wire.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
    )


def _details(details: OutputDetails) -> dict[str, Any]:
    logprobs = details.logprobs
    return {
        "tool_calls": tuple(
            wire.ToolCall(id=call.id, name=call.name, arguments=call.arguments)
            for call in details.tool_calls
        ),
        "reasoning": details.reasoning,
        "logprobs": None if logprobs is None else tuple(map(_logprob, logprobs)),
    }


def _logprob(logprob: TokenLogprob) -> wire.TokenLogprob:
    top = (wire.TopLogprob(token=one.token, logprob=one.logprob) for one in logprob.top)
    return wire.TokenLogprob(token=logprob.token, logprob=logprob.logprob, top=tuple(top))
