"""Invocations that were foreseen, and where among them the program is.

A plan knows its invocations as a tree: a function, and those that its template invokes. The run
goes down the same tree; what it invokes beside it, a plan does not speak for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from semantic_kernel.contents.kernel_content import KernelContent
from semantic_kernel.functions import FunctionResult, KernelFunction

from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.plans import Plans
from parrot_integrations.planning.reply import Direct, Reply
from parrot_integrations.settings import ClientSettings

T = TypeVar("T")

_END: Any = object()


@dataclass(eq=False, slots=True)
class Invocation:
    """One invocation.

    Attributes:
        function: What is invoked; None at the root.
        is_traced: It was seen to its end, and its own calls are in the plan.
        is_open: It may make further calls.
        num_calls: Calls of models by itself that the plan has and the program has not made.
        children: The invocations inside, in order.
        depth: How many there are around it.
        late: The late-bound variable that its text is, if it is one.
    """

    function: KernelFunction | None = None
    is_traced: bool = False
    is_open: bool = False
    num_calls: int = 0
    children: list[Invocation] = field(default_factory=list)
    depth: int = 0
    late: str | None = None
    _is_taken: bool = False

    def add(self, function: KernelFunction) -> Invocation:
        """Foresee an invocation inside."""
        child = Invocation(function, depth=self.depth + 1)
        self.children.append(child)
        return child

    def take(self, function: KernelFunction) -> Invocation | None:
        """Return the next invocation of a function inside; None if none was foreseen."""
        for child in self.children:
            if child.function is function and not child._is_taken:
                child._is_taken = True
                return child
        return None

    @property
    def has_planned(self) -> bool:
        """Whether anything of it was foreseen."""
        return self.is_traced or any(child.has_planned for child in self.children)

    @property
    def is_whole(self) -> bool:
        """Whether all of it was foreseen."""
        return self.is_traced and not self.is_open and self.is_whole_inside

    @property
    def is_whole_inside(self) -> bool:
        """Whether all that is inside was foreseen."""
        return all(child.is_whole for child in self.children)

    @property
    def total_calls(self) -> int:
        """How many calls of models are in it and in all inside."""
        return self.num_calls + sum(child.total_calls for child in self.children)


@dataclass(slots=True)
class KernelPlans(Plans):
    """Plans of one run of functions.

    A call that was foreseen and is another when it is made leaves what depends on it worthless: the
    plans are given up at once, and the program goes on by itself.

    Attributes:
        has_come_apart: A call was not as foreseen.
        on_close: Told of the end, once.
    """

    has_come_apart: bool = False
    on_close: Callable[[KernelPlans], None] | None = None

    def claim(self, call: ModelCall, *, endpoint: ClientSettings, direct: Direct) -> Reply | None:
        """Return the reply of the planned call that is exactly this one; None if there is none.

        What nobody has foreseen does not get what was planned for another place, even if it is
        the same.
        """
        place = current_place.get()
        if place is None or place.plans is not self or place.invocation is None:
            outer = self.outer
            return None if outer is None else outer.claim(call, endpoint=endpoint, direct=direct)
        reply = Plans.claim(self, call, endpoint=endpoint, direct=direct)
        self._count(place.invocation, is_found=reply is not None)
        return reply

    def tell(self, invocation: Invocation, result: FunctionResult | None) -> None:
        """Take in the result of an invocation, if a plan waits for it."""
        text = None if invocation.late is None else _text_of(result)
        if invocation.late is not None and text is not None:
            for plan in self.plans:
                plan.tell(invocation.late, text)

    def close(self) -> None:
        """Give up what is unfinished."""
        Plans.close(self)
        told, self.on_close = self.on_close, None
        if told is not None:
            told(self)

    def _count(self, invocation: Invocation, *, is_found: bool) -> None:
        if not invocation.num_calls:
            # One that nobody spoke for: the model asked for tools, a filter tries again.
            return
        invocation.num_calls -= 1
        if not is_found:
            self.has_come_apart = True
            Plans.close(self)


def _text_of(result: FunctionResult | None) -> str | None:
    """Return the text of a result; None if to make it runs code of the program."""
    value = None if result is None else result.value
    is_models = isinstance(value, list) and bool(value) and isinstance(value[0], KernelContent)
    return str(result) if is_models or type(value) is str else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the program is.

    Attributes:
        plans: In force for what was foreseen around the place.
        invocation: The innermost one; None within what was not foreseen.
    """

    plans: KernelPlans
    invocation: Invocation | None


#: None outside of planned functions.
current_place: ContextVar[Place | None] = ContextVar("parrot_place", default=None)


@contextmanager
def at(place: Place | None) -> Iterator[None]:
    """Be at a place in a block; around a ``yield`` it would leak to the caller."""
    token = current_place.set(place)
    try:
        yield
    finally:
        current_place.reset(token)


def placed(place: Place | None, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Return items; while each is made the program is at a place."""
    return within(lambda: at(place), items)


async def within(
    block: Callable[[], AbstractContextManager[None]], items: AsyncIterator[T]
) -> AsyncGenerator[T, None]:
    """Yield items; each is made in a block of its own."""
    try:
        while True:
            with block():
                item = await anext(items, _END)
            if item is _END:
                return
            yield item
    finally:
        if hasattr(items, "aclose"):
            await items.aclose()
