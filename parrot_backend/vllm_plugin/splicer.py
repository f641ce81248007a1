"""Requests that go on where another ends: kept back until then, with its output put in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from parrot_backend.vllm_compat.seams import CoreRequest, CoreSeam

#: Outputs of ended requests that are remembered, for whoever comes a moment too late.
_MAX_OUTPUTS = 256


class Splicer:
    """Keeps requests back and lets them go on.

    A request whose predecessor does not end well stays until it is aborted: who staged it knows.

    Args:
        core: vLLM's scheduler.
        went_on: Told of each request that goes on, when its prompt is whole.
    """

    def __init__(self, core: CoreSeam, went_on: Callable[[CoreRequest], None]) -> None:
        self._core = core
        self._went_on = went_on
        self._kept: dict[str, list[CoreRequest]] = {}
        self._after: dict[CoreRequest, str] = {}
        self._outputs: OrderedDict[str, list[int]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def keeps(self, request: CoreRequest) -> bool:
        """Tell whether a request is to be kept back at all."""
        return request.hints is not None and request.hints.after is not None

    def add(self, request: CoreRequest) -> None:
        """Keep a request back, unless its predecessor has ended already."""
        after = request.hints.after
        if after in self._outputs:
            self._go_on(request, self._outputs[after])
        else:
            self._kept.setdefault(after, []).append(request)
            self._after[request] = after

    def ended(self, request: CoreRequest, *, is_complete: bool) -> None:
        """A request has ended: let those go on that wait for it, or forget it if it was kept."""
        self._forget(request)
        name = request.hints.name
        if name is None or not is_complete:
            return
        output_ids = request.output_ids
        self._outputs[name] = output_ids
        if len(self._outputs) > _MAX_OUTPUTS:
            self._outputs.popitem(last=False)
        for kept in self._kept.pop(name, ()):
            del self._after[kept]
            self._go_on(kept, output_ids)

    def _go_on(self, request: CoreRequest, output_ids: list[int]) -> None:
        # Without a token, the prompt might have another form altogether.
        if output_ids:
            self._core.go_on(request, output_ids, request.hints.gap_at)
            self._went_on(request)

    def _forget(self, request: CoreRequest) -> None:
        after = self._after.pop(request, None)
        if after is not None:
            self._kept[after].remove(request)
            if not self._kept[after]:
                del self._kept[after]
