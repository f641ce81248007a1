"""Learns how long steps take: what passes from one step's results to those of the next.

Steps that need no plan (``steady.py``) are not told of one by one. Since they are like the planned
one before them, all of them together are learnt from as one, by their mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from parrot_backend.core.step_time import StepTimeFitter, StepWork


@dataclass(slots=True)
class _Run:
    """A planned step, and those after it that were like it."""

    work: StepWork
    elapsed_s: float
    num_steps: int = 1

    @property
    def mean_work(self) -> StepWork:
        """What a step of it computes in the mean: each decode's context grows by one token."""
        grown_tokens = self.work.decodes * (self.num_steps - 1) // 2
        return replace(self.work, context_tokens=self.work.context_tokens + grown_tokens)


class StepTimes:
    """Measures steps of an engine.

    Args:
        fitter: Learns from them.
    """

    def __init__(self, fitter: StepTimeFitter) -> None:
        self._fitter = fitter
        self._made: list[tuple[StepWork, float]] = []
        self._run: _Run | None = None
        self._last_done_s = 0.0
        self._num_running = 0

    def lose_track(self) -> None:
        """Steps may have passed that were not told of."""
        self._num_running = 0

    def made(self, work: StepWork, now_s: float) -> None:
        """A planned step is on its way."""
        self._made.append((work, now_s))

    def done(self, now_s: float, num_running: int, *, is_known: bool) -> None:
        """The results of a step are in.

        Args:
            now_s: The time.
            num_running: Requests that go on.
            is_known: The step was planned; else it was like the one before.
        """
        if is_known and self._made:
            self._learn()
            work, begun_s = self._made.pop(0)
            # What passes between two steps of an engine that has work is time of the second one.
            # Where steps overlap, one begins when the results of the one before are in.
            goes_on = self._num_running > 0 or begun_s < self._last_done_s
            elapsed_s = now_s - (self._last_done_s if goes_on else begun_s)
            self._run = _Run(work, elapsed_s)
        elif self._run is not None:
            self._run.elapsed_s += now_s - self._last_done_s
            self._run.num_steps += 1
        if self._run is not None and not _may_go_on(self._run.work, num_running):
            self._learn()
        self._last_done_s, self._num_running = now_s, num_running

    def _learn(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            self._fitter.observe(run.mean_work, run.elapsed_s / run.num_steps, run.num_steps)


def _may_go_on(work: StepWork, num_running: int) -> bool:
    """Tell whether the step after this one may be like it: all decode, and nobody has ended."""
    return not work.prefill_tokens and num_running == work.decodes > 0
