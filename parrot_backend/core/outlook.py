"""What is still to come: of each request its output, of each path and each job the work.

Two measures of work, both in generated tokens. On a *path*, time counts: a prompt token takes about
1/256 of the time of a decoding step. For the size of a *job*, the share of an engine counts: there
a prompt token is about 1/8 of a generated one, since a step decodes for many requests at once.
Both from a 13B model on an A100 (DistServe's profile of its engine): 0.10 ms for a prompt token, 26
ms for a step that decodes for 64 requests with 100 tokens of context each, 0.9 ms for each of them
with 1,000.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from parrot_backend.core.attained import attained_before
from parrot_backend.core.bodies import calls_of
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.control import ControlNode
from parrot_backend.core.fleet import Fleet
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import NodeId
from parrot_backend.core.jobs import Job
from parrot_backend.core.lengths import LengthBook, kinds_of
from parrot_backend.core.nodes import Node, Request
from parrot_backend.core.prompt import InPlace, Input, Output, Text, chars_of
from parrot_backend.core.scheduling.orders import ordering_name
from parrot_backend.core.session import Session, app_of

_PROMPT_ON_PATH = 1 / 256
_PROMPT_IN_JOB = 1 / 8

#: First estimate of the time that a generated token takes, and the weight of each finished request.
_TOKEN_S = 0.03
_LEARNING_RATE = 0.05


class Outlook:
    """Forecasts of requests, paths and jobs, kept as graphs grow and requests end.

    Args:
        config: What is learnt, and which order needs what.
        lengths: What is learnt.
        fleet: Knows how long texts are; its queues are told what changes the place of a request.
    """

    def __init__(self, config: CoreConfig, lengths: LengthBook, fleet: Fleet) -> None:
        self._learns = config.lengths.is_on
        ordering = ordering_name(config.scheduler)
        self._ranks_jobs = ordering == "shortest_job"
        self._counts_service = ordering == "attained_service"
        self._lengths = lengths
        self._fleet = fleet
        self._token_s = _TOKEN_S

    def begin(self, session: Session, nodes: Iterable[Node]) -> None:
        """Take in new nodes; requests among them have their places in the order.

        Args:
            session: Theirs.
            nodes: In any order; they are in the graph.
        """
        graph, added = session.graph, list(nodes)
        grown, parents = dict[int, Job](), dict[NodeId, Node]()
        for node in sorted(added, key=_index) if len(added) > 1 else added:
            if isinstance(node, Request):
                job = self._begin(session, node)
                grown[id(job)] = job
            elif isinstance(node, ControlNode):
                node.work_tokens = node.path_tokens = _work_of_bodies(node)
            if graph.is_read(node.output):
                parents.update((parent.id, parent) for parent in _take_over(graph, node))
        self._lengthen(graph, [*added, *parents.values()])
        for job in grown.values():
            self._rank(job)

    def ready(self, session: Session, request: Request) -> None:
        """Take in that all inputs of a request are there, before it is queued."""
        if self._counts_service:
            # Of a session that holds many runs, a call that is found to read nothing begins one.
            begins_run = request.found is not None and not session.is_run
            inherited_tokens = 0.0 if begins_run else session.attained_tokens
            request.attained_tokens = attained_before(session.graph, request, inherited_tokens)
        if request.inputs:  # else nothing has changed since it began
            self._foresee(session, request)

    def learn(self, session: Session, request: Request, finish_reason: str, now_s: float) -> None:
        """Learn from a request that has finished; its usage is known."""
        usage = request.usage
        assert usage is not None
        if self._learns:
            is_cut = finish_reason == "length" and not request.sampling.ignore_eos
            self._lengths.learn(request.kinds, usage.completion_tokens, is_cut=is_cut)
        computed_tokens = max(0, usage.prompt_tokens - usage.cached_tokens)
        work_tokens = usage.completion_tokens + computed_tokens * _PROMPT_ON_PATH
        if request.placed_s is not None and work_tokens >= 1:
            seen_s = (now_s - request.placed_s) / work_tokens
            self._token_s += _LEARNING_RATE * (seen_s - self._token_s)
        if self._counts_service:
            request.attained_tokens = (request.attained_tokens or 0.0) + work_tokens
            session.attained_tokens = max(session.attained_tokens, request.attained_tokens)

    def end(self, session: Session, request: Request) -> None:
        """Take in that a request has ended, however it did."""
        job = session.jobs[request.session_order]
        del job.unfinished[request.id]
        job.work_tokens -= request.job_tokens
        if not job.unfinished and not session.is_run:
            del session.jobs[request.session_order]  # there may be any number of them
        self._rank(job)
        self._fleet.scheduler.settle(request, _service_of(request))

    def _begin(self, session: Session, request: Request) -> Job:
        job = session.jobs.get(request.session_order)
        if job is None:
            job = session.jobs[request.session_order] = Job()
        job.unfinished[request.id] = request
        if self._learns:
            request.kinds = kinds_of(request, app_of(session))
        request.path_tokens = request.work_tokens = request.job_tokens = 0.0
        if request.found is not None:
            request.path_tokens = job.ahead_tokens = request.found.tokens_to_come
        self._foresee(session, request)
        request.job_level = job.level
        return job

    def _foresee(self, session: Session, request: Request) -> None:
        """Write on a request what is expected of it now, and keep path and job in step."""
        if self._learns:
            request.forecast = self._lengths.forecast(request.kinds)
        request.token_s = self._token_s
        prompt_tokens = _prompt_tokens(session.graph, request, self._fleet.tokens_per_char)
        work_tokens = request.expected_tokens + prompt_tokens * _PROMPT_ON_PATH
        request.path_tokens += work_tokens - request.work_tokens
        request.work_tokens = work_tokens
        job_tokens = request.expected_tokens + prompt_tokens * _PROMPT_IN_JOB
        session.jobs[request.session_order].work_tokens += job_tokens - request.job_tokens
        request.job_tokens = job_tokens

    def _lengthen(self, graph: SessionGraph, nodes: Iterable[Node]) -> None:
        """Bring the paths up to date that lead to new nodes."""
        # By falling topological index, so that each node is final when its turn comes.
        heap = [(-node.index, node.id) for node in nodes if node.reads]
        if not heap:
            return
        heapq.heapify(heap)
        new, lengthened = {node_id for _, node_id in heap}, dict[NodeId, Node]()
        while heap:
            node = graph.nodes[heapq.heappop(heap)[1]]
            for before in graph.predecessors(node):
                longer_tokens = node.path_tokens + before.work_tokens
                if before.has_ended or before.path_tokens >= longer_tokens:
                    continue
                before.path_tokens = longer_tokens
                if before.id not in new and before.id not in lengthened:
                    lengthened[before.id] = before
                    heapq.heappush(heap, (-before.index, before.id))
        for node in lengthened.values():
            if isinstance(node, Request):
                self._fleet.scheduler.update(node, lambda: None)

    def _rank(self, job: Job) -> None:
        """Move the queued requests of a job whose size is of another level now."""
        if self._ranks_jobs and job.note_level():
            for request in job.unfinished.values():
                request.job_level = job.level
                self._fleet.scheduler.update(request, lambda: None)


def _service_of(request: Request) -> float | None:
    """Return what an ended request took of its engine, in tokens; None if that is not known."""
    usage = request.usage
    if usage is None:
        return None
    return max(0, usage.prompt_tokens - usage.cached_tokens) + usage.completion_tokens


def _index(node: Node) -> int:
    return node.index


def _prompt_tokens(graph: SessionGraph, request: Request, tokens_per_char: float) -> float:
    """Return how long a prompt is, as far as that can be known before all of it is there."""
    if request.parts:
        return chars_of(request.parts) * tokens_per_char
    chars, tokens = 0, 0.0
    for segment in request.segments:
        if isinstance(segment, Text):
            chars += len(segment.text)
        elif isinstance(segment, Input | InPlace):
            variable = graph.variables[segment.variable]
            producer = None if variable.producer is None else graph.nodes[variable.producer]
            if variable.value is not None:
                chars += len(variable.value)
            elif isinstance(producer, Request):
                tokens += producer.expected_tokens
    return chars * tokens_per_char + tokens


def _take_over(graph: SessionGraph, node: Node) -> Iterator[Node]:
    """Let a new node count instead of what a control node had foreseen; yield that control node."""
    for reader in graph.readers(graph.variables[node.output]):
        if isinstance(reader, ControlNode) and reader.ready_s is not None:
            reader.path_tokens -= reader.work_tokens
            reader.work_tokens = 0.0
            yield reader


def _work_of_bodies(node: ControlNode) -> float:
    """Return the work on the longest path through what a control node is to bring forth.

    Nothing is known of those calls but their limits; when they are made, they count themselves.
    """
    outputs = [
        segment.sampling.expected(None)
        for call in calls_of([node.plan.spec])
        for segment in call.segments
        if isinstance(segment, Output)
    ]
    return node.plan.length * sum(outputs, 0.0) / len(outputs) if outputs else 0.0
