"""One run of the benchmark: its steps, what they print, and the rows they leave."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from benchmarks.attention_gpu.chip import Limits, measure_limits, time_us
from benchmarks.attention_gpu.contenders import CONTENDERS, Call, Contender, NotHere
from benchmarks.attention_gpu.problem import Problem, expected, make_layers, make_problem
from benchmarks.attention_gpu.shapes import PAT_TREES, Shape, tiny_shapes
from benchmarks.common import Cell, Spread, append_rows, cells

#: Largest error against float64 on N(0, 1), by dtype.
TOLERANCE = {torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


class Session:
    """Runs contenders on shapes until the time is over."""

    def __init__(self, *, is_dry: bool, ends_s: float) -> None:
        self._is_dry = is_dry
        self._ends_s = ends_s
        self._device = torch.device("cpu" if is_dry else "cuda")
        # The interpreter's bfloat16 products are wrong.
        self._dtype = torch.float16 if is_dry else torch.bfloat16
        self._limits: Limits | None = None
        self._missing: dict[str, str] = {}
        self._rows: list[dict[str, Cell]] = []
        self._num_wrong = 0

    def check(self) -> None:
        """Compare our kernels with float64 on a few shapes of each kind of page."""
        chosen = list(tiny_shapes())
        if not self._is_dry:
            small = [tree for tree in PAT_TREES if tree.batch <= 64]
            chosen += [
                Shape(tree, 32, 8, head_dim, page)
                for tree in small
                for head_dim in (64, 96, 128, 256)
                for page in (16, 32)
            ]
            # Pages of 64, which are loaded by descriptors.
            chosen += [Shape(tree, 32, 8, 128, 64) for tree in small[-1:]]
        for shape in chosen:
            problem = make_problem(shape, self._device, self._dtype)
            for contender in CONTENDERS:
                if contender.is_ours:
                    self._checked(contender, problem)
        print(f"checked {len(chosen)} shapes; wrong outputs: {self._num_wrong}", flush=True)

    def measure_chip(self) -> None:
        """Measure the limits of the chip."""
        found = self._limits = measure_limits()
        print(
            f"{torch.cuda.get_device_name()}: copy {found.copy_bytes_per_s / 1e12:.2f} TB/s, "
            f"in L2 {found.l2_bytes_per_s / 1e12:.2f} TB/s, "
            f"bfloat16 {found.flop_per_s / 1e12:.0f} TFLOP/s",
            flush=True,
        )

    def compare(self, shapes: Iterable[Shape]) -> None:
        """Run all contenders on each shape."""
        for shape in shapes:
            if time.monotonic() > self._ends_s:
                print("the time is over; shapes after this one were not run")
                return
            layers = make_layers(shape, self._device, self._dtype)
            found = {c: self._timed(c, layers) for c in CONTENDERS}
            self._report(shape, {c: times for c, times in found.items() if times is not None})

    def finish(self, *, writes_rows: bool) -> int:
        """Say what was missing, write the rows, and return the exit status."""
        for name, reason in self._missing.items():
            print(f"not compared: {name}: {reason}")
        if writes_rows and self._rows:
            print(f"rows: {append_rows('attention_gpu', self._rows)}")
        return int(self._num_wrong > 0)

    def _timed(self, contender: Contender, layers: list[Problem]) -> Spread | None:
        """Return microseconds a layer; None if it could not run or was wrong."""
        first = self._checked(contender, layers[0])
        if first is None:
            return None
        if self._is_dry:
            return Spread(0.0, 0.0, 0.0)
        try:
            return time_us([first, *(contender.prepare(layer) for layer in layers[1:])])
        except Exception as reason:  # noqa: BLE001 - one contender is not to end the run
            self._excuse(contender, reason)
            return None

    def _excuse(self, contender: Contender, reason: Exception) -> None:
        """Remember why a contender did not run. That ours breaks counts as wrong."""
        words = reason if isinstance(reason, NotHere) else f"{type(reason).__name__}: {reason}"
        if contender.is_ours and not isinstance(reason, NotHere):
            print(f"FAILED: {contender.name}: {words}", flush=True)
            self._num_wrong += 1
        else:
            self._missing.setdefault(contender.name, str(words)[:300])

    def _checked(self, contender: Contender, problem: Problem) -> Call | None:
        """Return a contender's call once its output is right; None if it cannot run or is wrong."""
        try:
            call = contender.prepare(problem)
            output = call()
            if problem.query.is_cuda:
                torch.cuda.synchronize()
        except Exception as reason:  # noqa: BLE001 - one contender is not to end the run
            self._excuse(contender, reason)
            return None
        last = problem.shape.tree.batch - 1
        some = sorted({0, last // 2, last})
        error = float((output[some].double() - expected(problem, some)).abs().max())
        if not error <= TOLERANCE[self._dtype]:
            print(f"WRONG: {contender.name} on {problem.shape}: error {error:.3g}")
            self._num_wrong += contender.is_ours
            return None
        return call

    def _report(self, shape: Shape, found: dict[Contender, Spread]) -> None:
        """Print a shape, and keep its rows."""
        name = f"{shape.tree.name} {shape.num_query_heads}/{shape.num_kv_heads}"
        if self._limits is None:
            print(f"{name}: {', '.join(c.name for c in found)} agree with float64", flush=True)
            return
        bound = shape.bound_us(self._limits.copy_bytes_per_s, self._limits.flop_per_s)
        others = [times.median for c, times in found.items() if not c.is_ours]
        best = min(others, default=None)
        words = []
        for contender, times in found.items():
            ratio = None if best is None else best / times.median
            share = bound / times.median
            words.append(f"{contender.name} {times.median:.1f} us ({share:.0%})")
            self._rows.append(
                {
                    "gpu": torch.cuda.get_device_name(),
                    "tree": shape.tree.name,
                    "query_heads": shape.num_query_heads,
                    "kv_heads": shape.num_kv_heads,
                    "head_dim": shape.head_dim,
                    "page_size": shape.page_size,
                    "contender": contender.name,
                    **cells("us", times, 2),
                    "bound_us": round(bound, 2),
                    "share_of_bound": round(share, 4),
                    "faster_than_best_other": None if ratio is None else round(ratio, 3),
                    "copy_tb_per_s": round(self._limits.copy_bytes_per_s / 1e12, 3),
                    "l2_tb_per_s": round(self._limits.l2_bytes_per_s / 1e12, 3),
                    "tflop_per_s": round(self._limits.flop_per_s / 1e12, 1),
                }
            )
        print(f"{name}: bound {bound:.1f} us; {', '.join(words)}", flush=True)
