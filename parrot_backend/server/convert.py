"""Wire to core: requests as pydantic models in, events and specs out. Pure.

Templates are parsed here, names become ids, and what the wire schema cannot say is checked: where
outputs may stand in a chat, and that transforms generate nothing. What needs the session's graph
(unknown names, cycles, repeats) is checked by the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from typing import assert_never

from parrot_backend import protocol as wire
from parrot_backend.core import transforms as core_transforms
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.events import (
    CallSpec,
    GraphSubmitted,
    NodeSpec,
    TransformSpec,
    VariableSpec,
    Wanted,
)
from parrot_backend.core.ids import SessionId, WaiterId, variable_id
from parrot_backend.core.prompt import Input, Output, Role, Segment, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.errors import RequestError
from parrot_backend.server.convert_chat import chat_options, message_head, response_format
from parrot_backend.server.convert_control import ControlConverter

#: Fields that say how to answer, not what to run: a repeat may differ in them.
_NOT_IN_DIGEST = {"idempotency_key", "wait", "stream", "timeout_s", "on_disconnect"}

#: Constant texts beside each other that stay segments of their own.
_MAX_ADJACENT_TEXTS = 32


@dataclass(frozen=True, slots=True)
class SubmitContext:
    """What the server adds to a submit: whose it is, when it came, and who waits for what."""

    session: SessionId
    is_new: bool
    tenant: str
    now_s: float
    waiter_of: Mapping[str, WaiterId]


def submit_to_event(body: wire.SubmitRequest, context: SubmitContext) -> GraphSubmitted:
    """Return the event of a submit.

    Raises:
        RequestError: ``unknown_placeholder``, ``template_syntax``, ``misplaced_output``,
            ``duplicate_output``, ``misplaced_tools``, ``duplicate_tool`` or ``unknown_tool``.
    """
    return GraphSubmitted(
        session=context.session,
        is_new=context.is_new,
        tenant=context.tenant,
        app=body.app,
        metadata=tuple(body.metadata.items()),
        idempotency_key=body.idempotency_key,
        digest="" if body.idempotency_key is None else digest_of(body),
        variables=tuple(VariableSpec(v.name, v.value) for v in body.variables),
        nodes=tuple(_node(node, context.session) for node in body.nodes),
        wanted=_wanted(body, context),
        close=body.close,
        quiet=_is_quiet(body, context),
    )


def digest_of(body: wire.SubmitRequest) -> str:
    """Return what identifies the work a submit asks for, whatever its spelling in JSON."""
    text = body.model_dump_json(exclude=_NOT_IN_DIGEST)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def criteria_to_core(criteria: wire.WireCriteria, now_s: float) -> Criteria:
    """Return criteria with the deadline on the core's clock.

    A target makes a value latency-sensitive, whatever kind was named with it.
    """
    has_target = (criteria.deadline_s, criteria.ttft_s, criteria.tpot_s) != (None, None, None)
    return Criteria(
        CriteriaKind.LATENCY if has_target else CriteriaKind(criteria.kind),
        None if criteria.deadline_s is None else now_s + criteria.deadline_s,
        criteria.ttft_s,
        criteria.tpot_s,
        is_default=not has_target and "kind" not in criteria.model_fields_set,
    )


def _is_quiet(body: wire.SubmitRequest, context: SubmitContext) -> bool:
    """Tell whether nobody can read texts while they are generated, as far as a submit tells.

    Who waits to the end learns the session's id with the answer, too late to ask for a stream; who
    streams can say of each output that only its value is wanted. A submit that wants nothing tells
    that much only of a session that is there already.
    """
    if body.stream:
        return (bool(body.outputs) or not context.is_new) and not any(
            output.tokens for output in body.outputs
        )
    return body.wait and body.timeout_s is None and bool(body.outputs)


def _wanted(body: wire.SubmitRequest, context: SubmitContext) -> tuple[Wanted, ...]:
    names = [output.variable for output in body.outputs]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise RequestError("duplicate_output", f"outputs names {repeated!r} twice")
    return tuple(
        Wanted(
            variable_id(context.session, output.variable),
            None if output.criteria is None else criteria_to_core(output.criteria, context.now_s),
            context.waiter_of.get(output.variable),
            body.stream and output.tokens,
            output.instances,
        )
        for output in body.outputs
    )


def _node(node: wire.WireNode, session: SessionId) -> NodeSpec:
    where = f"call {node.name!r}"
    if isinstance(node, wire.MapNode | wire.BranchNode | wire.LoopNode):
        converter = ControlConverter(
            session, lambda inner: _node(inner, session), lambda read: _input(read, session)
        )
        return converter.convert(node)
    if isinstance(node, wire.TransformNode):
        return _transform_node(node, session)
    if node.messages is not None:
        segments = _chat(node.messages, node.sampling, session, where)
        num_outputs = sum(isinstance(segment, Output) for segment in segments)
        return CallSpec(node.name, segments, node.model, chat_options(node, num_outputs))
    assert node.prompt is not None, "checked by the wire model"
    raw = tuple(_segments(node.prompt, node.sampling, session, where))
    return CallSpec(node.name, raw, node.model, chat_options(node, num_outputs=1))


def _transform_node(node: wire.TransformNode, session: SessionId) -> TransformSpec:
    where = f"transform {node.name!r}"
    segments: list[Text | Input] = []
    for segment in _segments(node.content, wire.Sampling(), session, where):
        if not isinstance(segment, Text | Input):
            raise RequestError(
                "misplaced_output", f"{where}: a transform generates nothing; use a call"
            )
        segments.append(segment)
    return TransformSpec(
        node.name,
        tuple(segments),
        tuple(_transform(transform) for transform in node.transforms),
        variable_id(session, node.output),
    )


def _chat(
    messages: tuple[wire.Message, ...], sampling: wire.Sampling, session: SessionId, where: str
) -> tuple[Segment, ...]:
    result: list[Segment] = []
    for position, message in enumerate(messages, start=1):
        segments = _segments(message.content, sampling, session, where)
        is_open = message.role == "assistant" and not message.tool_calls
        may_generate = position == len(messages) and is_open
        if not may_generate and any(isinstance(segment, Output) for segment in segments):
            raise RequestError(
                "misplaced_output",
                f"{where}: message {position} ({message.role}) holds an output; only the last "
                "message may, and it must be the assistant's, without tool_calls",
            )
        result += [Role(message.role, message_head(message)), *segments]
    return tuple(result)


def _segments(
    content: wire.PromptContent, sampling: wire.Sampling, session: SessionId, where: str
) -> list[Text | Input | Output]:
    if isinstance(content, str):
        try:
            content = wire.parse_template(content)
        except wire.TemplateError as exc:
            raise RequestError(exc.code, f"{where}: {exc}") from exc
    return _joined([_segment(segment, sampling, session) for segment in content])


def _joined(segments: list[Text | Input | Output]) -> list[Text | Input | Output]:
    """Join constant texts that follow too many others: each boundary costs time.

    The first ones stay apart, since other prompts may share what is before a boundary.
    """
    joined: list[Text | Input | Output] = []
    for is_text, run in groupby(segments, lambda segment: isinstance(segment, Text)):
        kept = list(run)
        if is_text and len(kept) > _MAX_ADJACENT_TEXTS:
            rest = kept[_MAX_ADJACENT_TEXTS - 1 :]
            text = "".join(segment.text for segment in rest if isinstance(segment, Text))
            kept[_MAX_ADJACENT_TEXTS - 1 :] = [Text(text)]
        joined += kept
    return joined


def _segment(
    segment: wire.WireSegment, sampling: wire.Sampling, session: SessionId
) -> Text | Input | Output:
    match segment:
        case wire.TextSegment():
            return Text(segment.text)
        case wire.InputSegment():
            return _input(segment, session)
        case wire.OutputSegment():
            own = sampling if segment.sampling is None else segment.sampling
            return Output(variable_id(session, segment.variable), _sampling(own))
    assert_never(segment)


def _input(segment: wire.InputSegment, session: SessionId) -> Input:
    transforms = tuple(_transform(transform) for transform in segment.transforms)
    return Input(variable_id(session, segment.variable), transforms)


def _sampling(sampling: wire.Sampling) -> Sampling:
    return Sampling(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=sampling.seed,
        stop=sampling.stop,
        min_tokens=sampling.min_tokens,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        ignore_eos=sampling.ignore_eos,
        logprobs=sampling.logprobs,
        response_format=response_format(sampling.response_format),
    )


def _transform(transform: wire.WireTransform) -> core_transforms.Transform:
    match transform:
        case wire.StripTransform():
            return core_transforms.Strip(transform.side)
        case wire.HtmlEscapeTransform():
            return core_transforms.HtmlEscape(transform.double_quote, transform.single_quote)
        case wire.HtmlUnescapeTransform():
            return core_transforms.HtmlUnescape()
        case wire.RegexGroupTransform():
            return core_transforms.RegexGroup(transform.pattern, transform.group)
        case wire.JsonFieldTransform():
            return core_transforms.JsonField(transform.path)
        case wire.SplitTransform():
            return core_transforms.Split(transform.separator, transform.index)
        case wire.FormatTransform():
            return core_transforms.Format(transform.template)
        case wire.SplitLinesTransform():
            return core_transforms.SplitLines()
        case wire.SplitListTransform():
            return core_transforms.SplitList(transform.separator)
        case wire.JsonListTransform():
            return core_transforms.JsonList()
        case wire.JoinListTransform():
            return core_transforms.JoinList(transform.separator, transform.item)
    assert_never(transform)
