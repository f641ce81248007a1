"""Readers that are forecast: beginnings that calls to come of a session will have again.

Of calls that declare nothing none is known before it comes. But where earlier runs of an
application went on, this one will, and what two of its calls had in common later ones may have as
well. So its session counts as one more reader of that, until it is not expected to go on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import NamedTuple

from parrot_backend.core.attempts import prefix_seed
from parrot_backend.core.ids import EngineId, SessionId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.retention import Retention

#: Of a session; the oldest is let go first.
_MAX_WANTED = 64

#: Places in prompts of a session at which parts end; those that no call had for the longest go.
_MAX_PLACES = 256

#: Continuations of one place: calls of a stage part there, and later ones are like the newest.
_MAX_CONTINUATIONS = 8


class _Step(NamedTuple):
    """A part with text: where it is, the roles in front of it, its text."""

    position: int
    roles: tuple[PromptPart, ...]
    text: str


@dataclass(slots=True)
class _Place:
    """The end of a part in the prompts of a session.

    Attributes:
        continuations: What came next, the newest last.
        is_end: A prompt ended here.
    """

    continuations: list[_Step] = field(default_factory=list)
    is_end: bool = False


@dataclass(slots=True)
class _Prompts:
    """What the calls of a session said, and the boundaries that calls to come will read.

    Attributes:
        places: By the hash of all before them.
        wanted: Hashes, the oldest first.
    """

    places: OrderedDict[bytes, _Place] = field(default_factory=OrderedDict)
    wanted: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    def take_in(self, request: Request, chain: Sequence[PrefixBoundary]) -> PrefixBoundary | None:
        """Take in the prompt of a call, and return up to where calls to come may have the same.

        That is where it parts from all that came before; or its end, if it goes on from the end of
        another, since the next one may go on from this.
        """
        known = self._num_known(chain)
        keys = [_start_of(request) if not known else b"", *(boundary.hash for boundary in chain)]
        steps = _steps(request.parts)
        last = self.places.get(keys[known])
        shared = chain[known - 1] if known else None
        if known and last is not None and last.is_end:
            shared = chain[-1]
        elif last is not None and known < len(steps):
            shared = _shared_inside(request, steps[known], last) or shared
        for key, step in zip(keys[known:], steps[known:], strict=False):
            continuations = self._place(key).continuations
            continuations.append(step)
            del continuations[:-_MAX_CONTINUATIONS]
        self._place(keys[-1]).is_end = True
        while len(self.places) > _MAX_PLACES:
            self.places.popitem(last=False)
        return shared

    def _num_known(self, chain: Sequence[PrefixBoundary]) -> int:
        """Return how many leading parts a call has in common with one that came before."""
        for number in range(len(chain), 0, -1):
            if chain[number - 1].hash in self.places:
                return number
        return 0

    def _place(self, key: bytes) -> _Place:
        place = self.places.setdefault(key, _Place())
        self.places.move_to_end(key)
        return place


class Anticipation:
    """Makes sessions that will go on readers of what their calls have in common.

    Args:
        retention: Counts readers.
        min_tokens: Shorter prefixes are not worth keeping.
    """

    def __init__(self, retention: Retention, min_tokens: int) -> None:
        self._retention = retention
        self._min_tokens = min_tokens
        self._prompts: dict[SessionId, _Prompts] = {}

    def __len__(self) -> int:
        return len(self._prompts)

    def wanted(self) -> list[bytes]:
        """Return the hashes of what sessions want, those of each session once."""
        return [key for prompts in self._prompts.values() for key in prompts.wanted]

    def begin(
        self, request: Request, chain: Sequence[PrefixBoundary], keepers: Collection[EngineId]
    ) -> None:
        """Take in a request that is ready, once: a second time it would go on from its own end.

        Args:
            request: The request.
            chain: Boundaries at the ends of its parts.
            keepers: Engines that can keep prefixes.
        """
        found = request.found
        if found is None or not found.stages_to_come or not chain:
            return
        prompts = self._prompts.setdefault(request.session, _Prompts())
        boundary = prompts.take_in(request, chain)
        if boundary is None or boundary.tokens < self._min_tokens:
            return
        request.found = replace(found, kept_tokens=boundary.tokens)
        wanted = prompts.wanted
        if boundary.hash not in wanted:
            self._retention.expect(request.session, (boundary,), keepers)
        wanted[boundary.hash] = None
        wanted.move_to_end(boundary.hash)
        if len(wanted) > _MAX_WANTED:
            oldest, _ = wanted.popitem(last=False)
            self._retention.let_go(request.session, oldest)

    def ended(self, request: Request, *, is_last: bool) -> None:
        """Take in that a request has ended.

        Args:
            request: The request.
            is_last: No other of its session is unfinished.
        """
        if is_last and request.found is not None and not request.found.stages_to_come:
            self.forget(request.session)

    def forget(self, session: SessionId) -> None:
        """Nothing more is expected of a session."""
        if self._prompts.pop(session, None) is not None:
            self._retention.forget(session)


def _steps(parts: Sequence[PromptPart]) -> list[_Step]:
    steps: list[_Step] = []
    roles: tuple[PromptPart, ...] = ()
    for position, part in enumerate(parts):
        if part.kind is PartKind.ROLE:
            roles = (*roles, part)
        else:
            steps.append(_Step(position, roles, part.text))
            roles = ()
    return steps


def _shared_inside(request: Request, step: _Step, place: _Place) -> PrefixBoundary | None:
    """Return the longest beginning of a call that ends in a part and that others have as well."""
    others = [one.text for one in place.continuations if one.roles == step.roles]
    for beginning in reversed(request.beginnings):
        if beginning.part == step.position:
            head = step.text[: beginning.offset]
            if any(text.startswith(head) for text in others):
                return beginning.boundary
    return None


def _start_of(request: Request) -> bytes:
    """Return what stands for the place before any text: tools may come before it."""
    return blake2b(prefix_seed(request).encode("utf-8", "surrogatepass")).digest()
