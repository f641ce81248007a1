"""What runs of the same application have in common: stages and their widths.

Of each finished run it is kept which stage followed which stages: all before it, the last two, and
the last one. A running one is compared in the same order, so that a loop of three rounds is
told from one of four by a run that went the same way, and a new way by its last steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from statistics import median_low
from typing import NamedTuple

from parrot_backend.core.discovery.memory import Memory
from parrot_backend.core.discovery.stages import StageShape

#: What happened last counts: applications change.
_MAX_SAMPLES = 32

#: Stages before the present one that are compared where no run went the same way from the start.
_SHORT_HISTORIES = (2, 1)

#: Stages of a run that are learnt; nobody looks further ahead.
_MAX_STAGES = 72

#: Stages with more kinds of calls than this are all alike: they are told by their neighbours.
_MAX_KINDS = 16
_MANY_KINDS = ("many kinds",)

#: What an entry takes beside its samples; a sample; each kind it names. Measured, rounded up.
_ENTRY_BYTES = 700
_SAMPLE_BYTES = 200
_KIND_BYTES = 80


@dataclass(frozen=True, slots=True)
class ShapeBookConfig:
    """Limits of what is learnt of all applications together.

    Attributes:
        max_entries: Ways that runs went.
        max_bytes: Memory that they may take.
    """

    max_entries: int = 65_536
    max_bytes: int = 2**25


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


#: An application, and how its runs went.
_History = tuple[str, ...]


class ShapeBook:
    """Shapes of applications. Their names are the caller's; tenants belong into them."""

    def __init__(self, config: ShapeBookConfig | None = None) -> None:
        limits = config or ShapeBookConfig()
        self._followers: Memory[_History, tuple[_Sample, ...]] = Memory(
            limits.max_entries, limits.max_bytes
        )

    def __len__(self) -> int:
        return len(self._followers)

    @property
    def num_bytes(self) -> int:
        """How much memory it takes."""
        return self._followers.num_bytes

    def learn_run(self, app: str, stages: Sequence[StageShape]) -> None:
        """Take in a finished run."""
        shapes = [_plain(stage) for stage in stages]
        for index, histories in enumerate(_histories(app, shapes)[:_MAX_STAGES]):
            stage = shapes[index] if index < len(shapes) else None
            before = shapes[index - 1].width if index else None
            sample = _Sample(stage, stage is not None and stage.width == before)
            if stage is not None and not index:
                histories = tuple(_beginning(app, kind) for kind in stage.templates)
            for history in histories:
                samples = (*(self._followers.use(history) or ()), sample)[-_MAX_SAMPLES:]
                self._followers.put(history, samples, _size_of(samples))

    def forecast(self, app: str, stages: Sequence[StageShape]) -> Forecast | None:
        """Return what is expected after the stages so far; None if nothing is known.

        Args:
            app: The application.
            stages: Stages of the running session, of which the last may still grow.
        """
        if not stages:
            return None
        *before, present = (_plain(stage) for stage in stages)
        width = present.width
        expected = self._expected(app, before, present.templates)
        if expected is not None and expected.next_stage is not None:
            present = StageShape(
                expected.next_stage.templates, max(width, expected.next_stage.width)
            )
        after = self._expected(app, [*before, present])
        return None if after is None else replace(after, num_to_come=present.width - width)

    def _expected(
        self, app: str, stages: Sequence[StageShape], including: Sequence[str] = ()
    ) -> Forecast | None:
        """Return what follows these stages: the commonest, among those with some kinds if any."""
        histories = _histories(app, stages)[-1] if stages else (_beginning(app, including[0]),)
        for history in histories:
            known = self._followers.use(history) or ()
            samples = [s for s in known if not including or _includes(s.stage, including)]
            if samples:
                return _commonest(samples, stages)
        return None


def _plain(stage: StageShape) -> StageShape:
    """Return the shape of a stage as it is remembered."""
    return stage if len(stage.templates) <= _MAX_KINDS else StageShape(_MANY_KINDS, stage.width)


def _includes(stage: StageShape | None, kinds: Collection[str]) -> bool:
    """Tell whether calls of some kinds may be of a stage."""
    return stage is not None and (stage.templates == _MANY_KINDS or {*kinds} <= {*stage.templates})


def _size_of(samples: Sequence[_Sample]) -> int:
    kinds = sum(len(sample.stage.templates) for sample in samples if sample.stage)
    return _ENTRY_BYTES + len(samples) * _SAMPLE_BYTES + kinds * _KIND_BYTES


def _beginning(app: str, kind: str) -> _History:
    """Return what runs have in common that begin with a kind of call.

    Applications without a name are one: those that begin otherwise must not crowd each other out.
    """
    return (_digest(app), "begins with", kind)


def _histories(app: str, stages: Sequence[StageShape]) -> list[tuple[_History, ...]]:
    """Return, before each stage and after the last one, the ways there, the most telling first."""
    owner = _digest(app)
    names = [_digest(*stage.templates) for stage in stages]
    found: list[tuple[_History, ...]] = []
    whole = _digest()
    for index in range(len(names) + 1):
        short = [(owner, *names[index - num : index]) for num in _SHORT_HISTORIES if num <= index]
        found.append(((owner, "from the start", whole), *short))
        if index < len(names):
            whole = _digest(whole, names[index])
    return found


@lru_cache(maxsize=4096)  # each look ahead asks for the same ones again
def _digest(*names: str) -> str:
    text = "\n".join(names)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _commonest(samples: Sequence[_Sample], stages: Sequence[StageShape]) -> Forecast:
    """Return the forecast from what followed some stages, of equally common ones the latest."""
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
