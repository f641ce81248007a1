"""Jobs: runs of programs, and how much of each is still to be done.

A job's size decides on the order of jobs only by its *level*, of which there are two for each power
of two. So while a job shrinks, its queued requests move as often as its level falls: what is left
halves every other time, and all moves of a job together are about as many as its requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from parrot_backend.core.ids import NodeId
from parrot_backend.core.nodes import Request

_LEVELS_PER_OCTAVE = 2


@dataclass(slots=True, eq=False)
class Job:
    """One run of a program.

    Attributes:
        unfinished: Its requests that have not ended.
        work_tokens: What they are expected to take of engines together, in generated tokens.
        ahead_tokens: The same for calls that are expected to follow and were not submitted yet.
        level: Size of both, in steps of a factor.
    """

    unfinished: dict[NodeId, Request] = field(default_factory=dict)
    work_tokens: float = 0.0
    ahead_tokens: float = 0.0
    level: int = 0

    def note_level(self) -> bool:
        """Bring the level up to date; return whether it has changed."""
        left_tokens = max(1.0, self.work_tokens + self.ahead_tokens)
        level = round(_LEVELS_PER_OCTAVE * math.log2(left_tokens))
        changed = level != self.level
        self.level = level
        return changed
