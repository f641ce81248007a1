"""What the client's side can ask of the plug-in, through vLLM's own calls to its core.

``await client.engine_core.call_utility_async("parrot_call", name, arguments)``; everything is plain
data. A call never disturbs the engine: an unknown name or bad arguments fail that call alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from parrot_backend.vllm_plugin.options import read_options

if TYPE_CHECKING:
    from parrot_backend.vllm_plugin.policy import ApplicationPolicy


class Calls:
    """Names of calls and what they do.

    * ``apply`` (list of orders): do several things in order. An order is ``["hints", name, hints]``
      to change the hints of a request, ``["retain", key, name]`` to keep a prefix (with a name: the
      prompt and output of that ended request), or ``["release", key]`` to keep it no longer.
    * ``report`` (number): the report after that number, as soon as there is one; -1 for the first.
    * ``configure`` (options): other options; returns all of them.
    * ``state``: what is inside, for tests and for people.
    """

    def __init__(self, policy: ApplicationPolicy) -> None:
        self._policy = policy
        self._answers: dict[str, Callable[..., Any]] = {
            "apply": self._apply,
            "report": policy.reports.ask,
            "configure": self._configure,
            "state": self._state,
        }

    def answer(self, name: str, arguments: list[Any], now_s: float) -> Any:
        """Do what is asked.

        Raises:
            ValueError: There is no such call, or its arguments cannot be used.
        """
        if name not in self._answers:
            raise ValueError(f"Parrot's plug-in has no call {name!r}")
        return self._answers[name](*arguments, now_s=now_s)

    def _apply(self, orders: list[list[Any]], now_s: float) -> None:
        refused = [order for order in orders if not self._obey(order, now_s)]
        self._policy.flush(now_s)
        if refused:
            raise ValueError(f"Parrot's plug-in knows no such order: {refused[0]!r}")

    def _obey(self, order: object, now_s: float) -> bool:
        """Carry out an order; False if it is none."""
        match order:
            case ["hints", str(name), hints]:
                self._policy.update(name, hints, now_s)
            case ["retain", str(key), None | str() as name]:
                self._policy.keeper.retain(key, name, now_s)
            case ["release", str(key), *_]:
                self._policy.keeper.release(key)
            case _:
                return False
        return True

    def _configure(self, changes: dict[str, Any], now_s: float) -> dict[str, Any]:
        options = read_options({**asdict(self._policy.options), **changes})
        self._policy.configure(options)
        return asdict(options)

    def _state(self, now_s: float) -> dict[str, Any]:
        return self._policy.state()
