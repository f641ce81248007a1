"""What is recorded of a call whose structure was found in its texts."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.core.ids import TaskGroupId, VariableId


@dataclass(frozen=True, slots=True)
class Found:
    """Advice on one call; nothing the model reads depends on it.

    Attributes:
        reads: Variables that it reads, in order of first use.
        stage: Longest path from a call that reads nothing, in calls.
        template: What it has in common with calls of its kind.
        value_chars: Characters of its prompt that are of values.
        repeated_chars: Those that stood in earlier prompts, or are of no certain value.
        fresh_chars: Those that were not seen before.
        stages_to_come: How many stages are expected to follow.
        group: The calls of its stage, if a later one is expected to wait for all of them.
        tokens_to_come: How many tokens those stages will generate one after the other.
        kept_tokens: So many tokens of its prompt, estimated, are kept for calls to come.
    """

    reads: tuple[VariableId, ...]
    stage: int
    template: str
    value_chars: int = 0
    repeated_chars: int = 0
    fresh_chars: int = 0
    stages_to_come: int = 0
    group: TaskGroupId | None = None
    tokens_to_come: float = 0.0
    kept_tokens: int = 0
