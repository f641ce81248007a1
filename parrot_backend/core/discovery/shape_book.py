"""What runs of the same application have in common: stages, their widths, and output lengths.

Of each finished run it is kept which stage followed which stages: all before it, the last two, and
the last one. A running session is compared in the same order, so that a loop of three rounds is
told from one of four by a run that went the same way, and a new way by its last steps.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from statistics import median_low
from typing import NamedTuple

from parrot_backend.core.discovery.stages import StageShape

#: What happened last counts: applications change.
_MAX_SAMPLES = 32

#: Stages before the present one that are compared where no run went the same way from the start.
_SHORT_HISTORIES = (2, 1)


@dataclass(frozen=True, slots=True)
class ShapeBookConfig:
    """Limits of what is learnt.

    Attributes:
        max_apps: Applications; the least recently seen go first.
        max_histories: Histories of each, likewise; about 500 bytes each.
        max_templates: Call templates of each whose output lengths are kept, likewise.
    """

    max_apps: int = 1024
    max_histories: int = 1024
    max_templates: int = 1024


class OutputLength(NamedTuple):
    """How long outputs were.

    Attributes:
        median_tokens: Half of them were no longer.
        high_tokens: Nine of ten were no longer.
        num_seen: How many are known.
    """

    median_tokens: int
    high_tokens: int
    num_seen: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of a running session.

    Attributes:
        num_to_come: Further calls of the present stage.
        next_stage: The stage after that; None where runs ended.
        share: Of the earlier stages like this one, how many were followed by that.
        num_seen: How many there were.
    """

    num_to_come: int
    next_stage: StageShape | None
    share: float
    num_seen: int


class _Sample(NamedTuple):
    """What followed a history once; ``stage`` is None where the run ended."""

    stage: StageShape | None
    is_as_wide: bool


_History = tuple[str, ...]


@dataclass(slots=True)
class _App:
    lengths: OrderedDict[str, deque[int]] = field(default_factory=OrderedDict)
    all_lengths: deque[int] = field(default_factory=lambda: deque(maxlen=8 * _MAX_SAMPLES))
    followers: OrderedDict[_History, deque[_Sample]] = field(default_factory=OrderedDict)


class ShapeBook:
    """Shapes of applications. Their names are the caller's; tenants belong into them."""

    def __init__(self, config: ShapeBookConfig | None = None) -> None:
        self._config = config or ShapeBookConfig()
        self._apps: OrderedDict[str, _App] = OrderedDict()

    def learn_length(self, app: str, template: str, output_tokens: int) -> None:
        """Take in how long the output of a call was."""
        known = self._app(app)
        samples = known.lengths.setdefault(template, deque(maxlen=_MAX_SAMPLES))
        samples.append(output_tokens)
        known.lengths.move_to_end(template)
        if len(known.lengths) > self._config.max_templates:
            known.lengths.popitem(last=False)
        known.all_lengths.append(output_tokens)

    def output_length(self, app: str, template: str) -> OutputLength | None:
        """Return how long outputs of a template were, or those of the application if it is new."""
        known = self._apps.get(app)
        if known is None or not known.all_lengths:
            return None
        ranked = sorted(known.lengths.get(template) or known.all_lengths)
        return OutputLength(median_low(ranked), ranked[len(ranked) * 9 // 10], len(ranked))

    def num_outputs(self, app: str, template: str) -> int:
        """Return how many outputs of a template itself are known."""
        known = self._apps.get(app)
        return 0 if known is None else len(known.lengths.get(template, ()))

    def learn_run(self, app: str, stages: Sequence[StageShape]) -> None:
        """Take in a finished run."""
        known = self._app(app)
        for index, histories in enumerate(_histories(stages)):
            stage = stages[index] if index < len(stages) else None
            before = stages[index - 1].width if index else None
            sample = _Sample(stage, stage is not None and stage.width == before)
            for history in histories:
                samples = known.followers.setdefault(history, deque(maxlen=_MAX_SAMPLES))
                samples.append(sample)
                known.followers.move_to_end(history)
        while len(known.followers) > self._config.max_histories:
            known.followers.popitem(last=False)

    def forecast(self, app: str, stages: Sequence[StageShape]) -> Forecast | None:
        """Return what is expected after the stages so far; None if nothing is known.

        Args:
            app: The application.
            stages: Stages of the running session, of which the last may still grow.
        """
        known = self._apps.get(app)
        if known is None or not stages:
            return None
        present = stages[-1]
        expected = _expected(known, stages[:-1], present.templates)
        if expected is not None and expected.next_stage is not None:
            width = max(present.width, expected.next_stage.width)
            present = StageShape(expected.next_stage.templates, width)
        after = _expected(known, [*stages[:-1], present])
        num_to_come = present.width - stages[-1].width
        return None if after is None else replace(after, num_to_come=num_to_come)

    def _app(self, app: str) -> _App:
        known = self._apps.setdefault(app, _App())
        self._apps.move_to_end(app)
        if len(self._apps) > self._config.max_apps:
            self._apps.popitem(last=False)
        return known


def _histories(stages: Sequence[StageShape]) -> list[tuple[_History, ...]]:
    """Return, before each stage and after the last one, the ways there, the most telling first."""
    names = [_digest(*stage.templates) for stage in stages]
    found: list[tuple[_History, ...]] = []
    whole = _digest()
    for index in range(len(names) + 1):
        short = [tuple(names[index - num : index]) for num in _SHORT_HISTORIES if num <= index]
        found.append((("from the start", whole), *short))
        if index < len(names):
            whole = _digest(whole, names[index])
    return found


@lru_cache(maxsize=4096)  # each look ahead asks for the same ones again
def _digest(*names: str) -> str:
    text = "\n".join(names)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _expected(
    app: _App, stages: Sequence[StageShape], including: Collection[str] = ()
) -> Forecast | None:
    """Return what follows these stages: the commonest, among those with some templates if any."""
    for history in _histories(stages)[-1]:
        samples = [
            sample
            for sample in app.followers.get(history, ())
            if not including or (sample.stage and set(including) <= set(sample.stage.templates))
        ]
        if not samples:
            continue
        kinds = Counter(s.stage.templates if s.stage else None for s in reversed(samples))
        templates, count = kinds.most_common(1)[0]
        share = count / len(samples)
        if templates is None:
            return Forecast(0, None, share, len(samples))
        alike = [s for s in samples if s.stage and s.stage.templates == templates]
        if stages and 2 * sum(s.is_as_wide for s in alike) > len(alike):
            width = stages[-1].width
        else:
            width = median_low([s.stage.width for s in alike if s.stage])
        return Forecast(0, StageShape(templates, width), share, len(samples))
    return None
