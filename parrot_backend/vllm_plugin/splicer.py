"""Requests that go on where another ends: kept back until then, with its output put in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from parrot_backend.vllm_compat.seams import CoreRequest, CoreSeam

#: Outputs of ended requests that are remembered, for whoever comes a moment too late.
_MAX_OUTPUTS = 2048


class Splicer:
    """Keeps requests back and lets them go on.

    A request whose predecessor does not end well stays until it is aborted: who staged it knows.

    Args:
        core: vLLM's scheduler.
        went_on: Told of each request that goes on, when its prompt is whole.

    Attributes:
        is_on: Whether anything is kept back.
    """

    def __init__(self, core: CoreSeam, went_on: Callable[[CoreRequest], None]) -> None:
        self.is_on = True
        self._core = core
        self._went_on = went_on
        self._kept: dict[str, list[CoreRequest]] = {}
        self._after: dict[CoreRequest, str] = {}
        #: With the tenants whose they are: nobody gets the text of another.
        self._outputs: OrderedDict[str, tuple[list[int], str]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def keeps(self, request: CoreRequest) -> bool:
        """Tell whether a request is to be kept back at all."""
        return (
            self.is_on
            and self._core.can_splice
            and request.hints is not None
            and request.hints.after is not None
        )

    def add(self, request: CoreRequest) -> None:
        """Keep a request back, unless its predecessor has ended already."""
        after = request.hints.after
        self._kept.setdefault(after, []).append(request)
        self._after[request] = after
        ended = self._outputs.get(after)
        if ended is not None:
            self._release(after, *ended)

    def forget_output(self, name: str) -> None:
        """Another request of this name has come: who goes on after it means that one."""
        self._outputs.pop(name, None)

    def ended(self, request: CoreRequest, *, is_complete: bool) -> None:
        """A request has ended: let those go on that wait for it, or forget it if it was kept."""
        self._forget(request)
        name = request.hints.name
        if name is None or not is_complete:
            return
        self._outputs[name] = (request.output_ids, request.hints.tenant)
        if len(self._outputs) > _MAX_OUTPUTS:
            self._outputs.popitem(last=False)
        self._release(name, *self._outputs[name])

    def _release(self, name: str, output_ids: list[int], tenant: str) -> None:
        """Let those go on that wait for an output."""
        if not output_ids:
            return  # without a token, the prompt might have another form altogether
        for kept in self._kept.get(name, [])[:]:
            if kept.hints.tenant == tenant:
                self._forget(kept)
                self._core.go_on(kept, output_ids, kept.hints.gap_at)
                self._went_on(kept)

    def _forget(self, request: CoreRequest) -> None:
        after = self._after.pop(request, None)
        if after is not None:
            self._kept[after].remove(request)
            if not self._kept[after]:
                del self._kept[after]
