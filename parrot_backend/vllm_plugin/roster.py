"""The requests with hints that are around: their hints, names, and how often they began to wait."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from parrot_backend.vllm_compat.seams import CoreRequest
from parrot_backend.vllm_plugin.hints import Hints, RequestClass, changed_hints, parse_hints

logger = logging.getLogger(__name__)

#: What a request without hints counts as where hinted ones are around.
UNHINTED_CLASS = RequestClass.TASK_GROUP

#: Stands for the number of preemptions of a request that has not begun to wait.
_NEVER = -1


class Roster:
    """Reads hints and knows whose they are."""

    def __init__(self) -> None:
        # With how often it had been preempted when it last began to wait.
        self._alive: dict[CoreRequest, int] = {}
        self._has_begun: set[CoreRequest] = set()
        self._named: dict[str, CoreRequest] = {}
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._alive)

    @property
    def num_named(self) -> int:
        """How many have a name."""
        return len(self._named)

    def admit(
        self, request: CoreRequest, extra_args: dict[str, Any] | None, now_s: float
    ) -> Hints | None:
        """Read the hints of a new request, and return them; None if it has none."""
        raw = None if extra_args is None else extra_args.get("parrot")
        hints, problems = parse_hints(raw, now_s)
        self.warn(problems)
        request.request_class = UNHINTED_CLASS
        if hints is not None:
            _give(request, hints)
            # One that is kept back begins to wait when it goes on, others when they come.
            self._alive[request] = _NEVER if hints.after else request.num_preemptions
            if hints.name is not None:
                self._named[hints.name] = request
        return hints

    def change(self, name: str, raw: object, now_s: float) -> tuple[CoreRequest, Hints] | None:
        """Change hints of the request of a name; return it with those before, None if unknown."""
        request = self._named.get(name)
        if request is None:
            return None
        before: Hints = request.hints
        hints, problems = changed_hints(before, raw, now_s)
        self.warn(problems)
        if hints is not None:
            # It goes by the name under which it is known, and waits for whom it waits.
            _give(request, replace(hints, name=name, after=before.after, gap_at=before.gap_at))
        return request, before

    def waits(self, request: CoreRequest, now_s: float) -> None:
        """Note that a request waits: from now on, if it has run since it waited last."""
        if self._alive[request] != request.num_preemptions:
            self._alive[request] = request.num_preemptions
            request.waits_since_s = now_s

    def begins(self, request: CoreRequest) -> bool:
        """Note that a request runs; tell whether it does so for the first time."""
        if request.hints is None or request in self._has_begun:
            return False
        self._has_begun.add(request)
        return True

    def remove(self, request: CoreRequest) -> None:
        """Forget a request with hints: it has ended."""
        self._alive.pop(request, None)
        self._has_begun.discard(request)
        if self._named.get(request.hints.name) is request:
            del self._named[request.hints.name]

    def warn(self, problems: tuple[str, ...]) -> None:
        """Say what is wrong with hints, once."""
        if problems and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "Parrot: hints ignored (%s); further ones are ignored silently", "; ".join(problems)
            )


def _give(request: CoreRequest, hints: Hints) -> None:
    request.hints = hints
    request.request_class = hints.request_class
    request.tpot_s = hints.tpot_s
