"""How well forecasts of functions have come true, so that hopeless ones are not made for ever."""

from __future__ import annotations

import logging
from collections import OrderedDict

from parrot_integrations.semantic_kernel.invocations import KernelPlans

_logger = logging.getLogger(__name__)

#: So many plans of one program come apart in a row, and it is not planned any more.
_MAX_FAILURES = 3
#: Programs whose plans came apart and that are remembered.
_MAX_REMEMBERED = 1024


class Forecasts:
    """Remembers plans that came apart."""

    def __init__(self) -> None:
        self._failures: OrderedDict[object, int] = OrderedDict()

    def is_hopeless(self, key: object) -> bool:
        """Tell whether a program is not worth planning.

        Args:
            key: Tells it from others.
        """
        return self._failures.get(key, 0) >= _MAX_FAILURES

    def remember(self, key: object, name: str, plans: KernelPlans) -> None:
        """Take in how a run of a program ended.

        Args:
            key: Tells the program from others.
            name: What people call it.
            plans: Those of the run.
        """
        failures = self._failures.pop(key, 0)
        if not plans.has_come_apart:
            return
        self._failures[key] = failures + 1
        if len(self._failures) > _MAX_REMEMBERED:
            self._failures.popitem(last=False)
        if failures + 1 == _MAX_FAILURES:
            _logger.warning(
                "%s is not planned any more: %d times in a row it asked for something else than "
                "its templates foretold; does a filter change its prompts?",
                name,
                _MAX_FAILURES,
            )
