"""Filters of the user, and what is done about them when a plan is made.

A filter may refuse, change or take out what is asked. A plan sends its calls before any filter has
seen them: so a kernel that has some is not planned, unless its owner says that they are harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from semantic_kernel import Kernel

from parrot_integrations.planning.declared import is_traceable
from parrot_integrations.planning.symbols import CannotPlan

#: What is done about prompt-rendering filters of the user: nothing is planned, they run in the
#: trace as well, or they are taken to change nothing.
PromptFilters = Literal["cut", "trace", "ignore"]
#: What is done about function-invocation filters of the user: nothing is planned, or they are
#: taken to change nothing of what is asked.
FunctionFilters = Literal["cut", "ignore"]

_logger = logging.getLogger(__name__)


class PlanningFilter:
    """Base of filters that plan; to others they are no filters."""


@dataclass(frozen=True, slots=True)
class FilterRules:
    """What is done about filters of the user.

    Attributes:
        prompt: About prompt-rendering filters.
        function: About function-invocation filters.

    Raises:
        ValueError: One of them is not known.
    """

    prompt: PromptFilters = "cut"
    function: FunctionFilters = "cut"

    def __post_init__(self) -> None:
        """Refuse what is not known."""
        if self.prompt not in ("cut", "trace", "ignore"):
            raise ValueError(f"prompt_filters is cut, trace or ignore, not {self.prompt!r}")
        if self.function not in ("cut", "ignore"):
            raise ValueError(f"function_filters is cut or ignore, not {self.function!r}")

    def check(self, kernel: Kernel) -> None:
        """Make sure that filters do not keep a kernel from being planned.

        Raises:
            CannotPlan: They do.
        """
        found = self._in_the_way(kernel)
        if found:
            raise CannotPlan("; ".join(one.why for one in found))

    def _in_the_way(self, kernel: Kernel) -> list[_InTheWay]:
        found = []
        others = [one for _, one in kernel.function_invocation_filters if not _is_harmless(one)]
        if others and self.function == "cut":
            found.append(_InTheWay("function-invocation", "function_filters", _names(others)))
        prompt = [one for _, one in kernel.prompt_rendering_filters]
        if prompt and self.prompt == "cut":
            found.append(_InTheWay("prompt-rendering", "prompt_filters", _names(prompt)))
        return found


@dataclass(frozen=True, slots=True)
class _InTheWay:
    kind: str
    argument: str
    names: str

    @property
    def why(self) -> str:
        return f"the kernel has {self.kind} filters ({self.names}), see {self.argument}"


class FilterWarnings:
    """Warns of filters that keep kernels from being planned, once for the same ones."""

    def __init__(self) -> None:
        self._told: set[_InTheWay] = set()

    def tell(self, kernel: Kernel, rules: FilterRules) -> None:
        """Warn of the filters of a kernel, if they are in the way and it is news."""
        for found in rules._in_the_way(kernel):
            # Clones of a kernel have filters of the same names.
            if found not in self._told:
                self._told.add(found)
                _logger.warning(
                    "nothing is planned on a kernel with %s filters (%s): they may refuse or "
                    'change what is asked; if they do not, say %s="ignore"',
                    *(found.kind, found.names, found.argument),
                )


def _is_harmless(found: Any) -> bool:
    """Tell whether a function-invocation filter is a planner, or was declared harmless."""
    return isinstance(found, PlanningFilter) or is_traceable(found) or is_traceable(found.__call__)


def _names(filters: Sequence[Any]) -> str:
    return ", ".join(getattr(one, "__qualname__", type(one).__name__) for one in filters)
