"""What is found in the texts of calls, written on their requests before they are queued.

Sessions whose calls declare nothing are followed in a run book; what their runs have in common is
learnt in a shape book when they end. Each request gets its place in the order, its task group, and
the beginnings of its prompt that others may share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from parrot_backend.core.attempts import prefix_seed
from parrot_backend.core.config import DiscoveryConfig
from parrot_backend.core.criteria import Criteria, Objective, ObjectiveClass
from parrot_backend.core.discovery.beginnings import Message, shared_beginnings
from parrot_backend.core.discovery.found import Found
from parrot_backend.core.discovery.pieces import Fresh, Reference
from parrot_backend.core.discovery.run_book import RunBook
from parrot_backend.core.discovery.shape_book import ShapeBook
from parrot_backend.core.discovery.stages import StageShape
from parrot_backend.core.discovery.structure import FoundCall
from parrot_backend.core.ids import SessionId, TaskGroupId
from parrot_backend.core.lengths import LengthBook, template_kinds
from parrot_backend.core.nodes import Request
from parrot_backend.core.prompt import Role, Text
from parrot_backend.core.sampling import UNLIMITED_OUTPUT_TOKENS
from parrot_backend.core.session import Session, app_of
from parrot_backend.core.variable import Variable, VariableState

#: Nothing is foreseen of longer runs, since looking costs time for each stage before.
_MAX_STAGES_SEEN = 64

#: So far is looked ahead.
_MAX_STAGES_TO_COME = 8

#: What followed less often than this is not relied on.
_MIN_SHARE = 0.5

#: Calls that read nothing have one expectation, whatever run they turn out to belong to.
_NO_RUN_YET = -1

#: Each boundary costs a look-up in queue and index; calls part from each other late.
_MAX_BEGINNINGS = 32


class _Expected(NamedTuple):
    """What is expected of a run from its last stage on.

    Attributes:
        kinds: The templates of its stages so far.
        width: How many calls the last one will have.
        stages_to_come: How many are to follow.
        tokens_to_come: How many tokens those will generate one after the other.
    """

    kinds: tuple[tuple[str, ...], ...]
    width: int
    stages_to_come: int
    tokens_to_come: float


class Annotator:
    """Finds the structure of sessions, and writes it on their requests.

    Args:
        config: What is done, and how much is remembered.
        lengths: What is known of the lengths of outputs.
    """

    def __init__(self, config: DiscoveryConfig, lengths: LengthBook) -> None:
        self._config = config
        self._lengths = lengths
        self._runs = RunBook(config.max_chars)
        self._shapes = ShapeBook()
        self._expected_of: dict[SessionId, dict[int, _Expected]] = {}

    @property
    def num_chars(self) -> int:
        """How much text is remembered."""
        return self._runs.num_chars

    def begin(self, session: Session, request: Request, tokens_per_char: float) -> None:
        """Take in a request that declares no inputs, before it is queued.

        Args:
            session: Its session.
            request: The request; its model is settled.
            tokens_per_char: Estimate that turns lengths into tokens.
        """
        if not self._config.is_on or request.inputs:
            return
        messages = tuple(_messages(request))
        texts = [message.text for message in messages]
        call = self._runs.begin(session.id, request.id, texts, request.stage)
        request.found = self._found(session, call)
        request.depth, request.remaining = call.stage, request.found.stages_to_come
        if any(call.cuts()):
            chain = shared_beginnings(prefix_seed(request), messages, call.cuts(), tokens_per_char)
            request.beginnings = chain[-_MAX_BEGINNINGS:]

    def end(self, session: Session, request: Request, output: Variable) -> None:
        """Take in that a request has ended, and what it made."""
        if request.found is None:
            return
        if output.state is not VariableState.READY:
            self._runs.end(session.id, request.id, None, "")
            return
        self._runs.end(session.id, request.id, output.id, output.value or "")

    def forget(self, session: Session) -> None:
        """Take in that a session has ended, and learn from it."""
        self._expected_of.pop(session.id, None)
        for stages in self._runs.forget(session.id):
            if self._config.learns:
                self._shapes.learn_run(app_of(session), stages)

    def _found(self, session: Session, call: FoundCall) -> Found:
        pieces = [piece for text in call.pieces for piece in text]
        value_chars = sum(p.end - p.start for p in pieces if isinstance(p, Reference))
        fresh_chars = sum(p.end - p.start for p in pieces if isinstance(p, Fresh))
        found = Found(
            call.reads,
            call.stage,
            call.template,
            value_chars=value_chars,
            repeated_chars=sum(p.end - p.start for p in pieces) - value_chars - fresh_chars,
            fresh_chars=fresh_chars,
        )
        return self._foreseen(session, call.run, found) if self._config.learns else found

    def _foreseen(self, session: Session, run: int, found: Found) -> Found:
        """Return what was found of a call together with what earlier runs say of it."""
        app = app_of(session)
        if found.stage >= _MAX_STAGES_SEEN:
            return found
        # A call may come late to a stage that others have followed already.
        stages = self._runs.shape(session.id, run)[: found.stage + 1]
        if found.stage == 0:
            run = _NO_RUN_YET
        expected = self._expected(session.id, run, app, stages)
        group: TaskGroupId | None = None
        if expected.stages_to_come and max(expected.width, stages[-1].width) > 1:
            of_run = "" if run == _NO_RUN_YET else f"run{run}."
            group = TaskGroupId(f"{session.id}.{of_run}stage{found.stage}")
        return replace(
            found,
            stages_to_come=expected.stages_to_come,
            tokens_to_come=expected.tokens_to_come,
            group=group,
        )

    def _expected(
        self, session: SessionId, run: int, app: str, stages: Sequence[StageShape]
    ) -> _Expected:
        """Return what is expected from the last of the stages on.

        It is looked up once for each kind of stage, since the calls of one agree in that.
        """
        kinds = tuple(stage.templates for stage in stages)
        known = self._expected_of.setdefault(session, {}).get(run)
        if known is not None and known.kinds == kinds:
            return known
        width, ahead = 0, list(stages)
        while len(ahead) < len(stages) + _MAX_STAGES_TO_COME:
            forecast = self._shapes.forecast(app, ahead)
            if forecast is None or forecast.next_stage is None or forecast.share < _MIN_SHARE:
                break
            width = width or stages[-1].width + forecast.num_to_come
            ahead.append(forecast.next_stage)
        to_come = ahead[len(stages) :]
        tokens = sum(self._longest(app, stage) for stage in to_come)
        expected = _Expected(kinds, width, len(to_come), tokens)
        self._expected_of[session][run] = expected
        return expected

    def _longest(self, app: str, stage: StageShape) -> float:
        """Return how long the longest output of a stage is expected to be."""
        known = [self._lengths.forecast(template_kinds(app, name)) for name in stage.templates]
        return max(
            (UNLIMITED_OUTPUT_TOKENS if each is None else each.mean_tokens for each in known),
            default=UNLIMITED_OUTPUT_TOKENS,
        )


def in_stage(objective: Objective, request: Request, wanted: Criteria | None) -> Objective:
    """Return the objective of a request that is deduced from its graph, or that of its stage.

    Where a later stage waits for all calls of one, they matter as a group; unless the caller has
    said how urgent this one is, since that is known, and the stage is a guess.
    """
    group = None if request.found is None else request.found.group
    if wanted is None or wanted.is_bounded:
        return objective
    if group is None or objective.objective_class is not ObjectiveClass.LATENCY:
        return objective
    return replace(objective, objective_class=ObjectiveClass.TASK_GROUP, group=group)


def _messages(request: Request) -> Iterator[Message]:
    """Yield the messages; a raw prompt is one.

    The message that is to be generated is none, unless it has begun.
    """
    head, texts = "", list[tuple[int, str]]()
    for position, segment in enumerate(request.segments):
        if isinstance(segment, Role):
            if position:
                yield Message(head, tuple(texts))
            head, texts = f"{segment.role}\n{segment.head.text}", []
        elif isinstance(segment, Text):
            texts.append((position, segment.text))
    if texts:
        yield Message(head, tuple(texts))
