"""Semantic Kernel's orchestrations of agents, planned: one submit for all that the agents ask.

    orchestration = ParrotSequentialOrchestration(members=[writer, critic, editor])
    result = await orchestration.invoke(task, runtime)

Each is used as the framework's own. What cannot be foreseen (tools, other managers, other kinds of
agents) runs as it always does; the report says why. Either way the server is told the session and,
as the stage, which agent asks.
"""

from __future__ import annotations

import copy
import inspect
import logging
from typing import Any

from semantic_kernel.agents import Agent
from semantic_kernel.agents.orchestration.concurrent import ConcurrentOrchestration
from semantic_kernel.agents.orchestration.group_chat import (
    GroupChatOrchestration,
    RoundRobinGroupChatManager,
)
from semantic_kernel.agents.orchestration.orchestration_base import (
    DefaultTypeAlias,
    OrchestrationBase,
    OrchestrationResult,
    TIn,
    TOut,
)
from semantic_kernel.agents.orchestration.sequential import SequentialOrchestration
from semantic_kernel.agents.runtime.core.core_runtime import CoreRuntime
from semantic_kernel.contents import AuthorRole, ChatMessageContent
from semantic_kernel.exceptions import KernelException

from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.planning.watching import show_to_watchers
from parrot_integrations.semantic_kernel.orchestration_members import Member
from parrot_integrations.semantic_kernel.orchestration_plans import (
    Foreseen,
    labels_of,
    no_plan,
    plan_of,
)
from parrot_integrations.semantic_kernel.orchestration_runs import (
    EndEvent,
    Labels,
    OrchestrationRun,
)

_logger = logging.getLogger(__name__)

#: Bounds of what is traced before the first call: a member takes a millisecond or two, and a round
#: copies the whole chat several times. At either bound it is about a quarter of a second.
_MAX_MEMBERS, _MAX_ROUNDS = 200, 50

#: What a subclass may say without a change of what the agents are asked.
_HARMLESS = frozenset(
    {"t_in", "t_out", "_default_input_transform", "_default_output_transform", "_abc_impl"}
)


class PlannedOrchestration(OrchestrationBase[TIn, TOut]):
    """What the planned orchestrations have in common."""

    async def plan(self, task: str | DefaultTypeAlias | TIn) -> Plan:
        """Return the plan for a task; nothing is sent.

        Without calls, its report says why the orchestration is not planned.
        """
        self._set_types()
        messages = await self._to_messages(task)
        return (await self._foresee(messages, labels_of(self.name))).plan

    async def invoke(
        self, task: str | DefaultTypeAlias | TIn, runtime: CoreRuntime
    ) -> OrchestrationResult[TOut]:
        """Start the orchestration on a task; see ``OrchestrationBase.invoke``."""
        self._set_types()
        labels = labels_of(self.name)
        if (why := self._own_ways()) is not None:
            show_to_watchers([no_plan(labels.orchestration, why).plan])
            return await super().invoke(task, runtime)
        messages = await self._to_messages(task)
        foreseen = await self._foresee(messages, labels)
        show_to_watchers([foreseen.plan])
        run = OrchestrationRun(labels, foreseen.plan, foreseen.root)
        bound = copy.copy(self)
        bound._members = [_bound(member, run) for member in self._members]
        # The user's transform has run.
        bound._input_transform = lambda _: messages
        result = await super(PlannedOrchestration, bound).invoke(task, runtime)
        # Nothing runs between the start of the orchestration and this line.
        result.event = EndEvent(run.end)
        return result

    def _symbolic(self, members: list[Agent]) -> OrchestrationBase[Any, Any]:
        """Return the framework's own orchestration of other members.

        Raises:
            CannotPlan: What it will do depends on more than its members.
        """
        raise NotImplementedError

    async def _to_messages(self, task: Any) -> Any:
        """Return what ``OrchestrationBase.invoke`` makes of a task."""
        if isinstance(task, str):
            return ChatMessageContent(role=AuthorRole.USER, content=task)
        if isinstance(task, ChatMessageContent):
            return task
        if isinstance(task, list) and all(isinstance(item, ChatMessageContent) for item in task):
            return task
        made: Any = self._input_transform(task)
        return await made if inspect.iscoroutinefunction(self._input_transform) else made

    async def _foresee(self, messages: DefaultTypeAlias, labels: Labels) -> Foreseen:
        try:
            if (why := self._own_ways()) is not None:
                raise CannotPlan(why)
            return await plan_of(self._members, self._symbolic, messages, labels)
        except CannotPlan as exc:
            return no_plan(labels.orchestration, str(exc))
        except KernelException as exc:
            # It shows when the orchestration runs, too.
            return no_plan(labels.orchestration, f"{type(exc).__name__}: {exc}")
        except Exception as exc:
            # A defect of ours must not keep the orchestration from running.
            _logger.warning("an orchestration could not be planned", exc_info=True)
            return no_plan(labels.orchestration, f"{type(exc).__name__}: {exc}")

    def _own_ways(self) -> str | None:
        """Return what a subclass of the user's does in its own way; None if there is nothing."""
        for cls in type(self).__mro__:
            if cls.__module__ == __name__:
                break
            for name in vars(cls):
                is_own = hasattr(PlannedOrchestration, name) and not name.startswith("__")
                if is_own and name not in _HARMLESS:
                    return f"{cls.__name__} has a {name} of its own"
        return None


class ParrotSequentialOrchestration(
    PlannedOrchestration[TIn, TOut], SequentialOrchestration[TIn, TOut]
):
    """A ``SequentialOrchestration``, planned: each agent goes on with what the one before said."""

    def _symbolic(self, members: list[Agent]) -> OrchestrationBase[Any, Any]:
        _check_size(len(members), _MAX_MEMBERS, "members")
        return SequentialOrchestration(members=members)


class ParrotConcurrentOrchestration(
    PlannedOrchestration[TIn, TOut], ConcurrentOrchestration[TIn, TOut]
):
    """A ``ConcurrentOrchestration``, planned: all agents work on the same task."""

    def _symbolic(self, members: list[Agent]) -> OrchestrationBase[Any, Any]:
        _check_size(len(members), _MAX_MEMBERS, "members")
        return ConcurrentOrchestration(members=members)


class ParrotGroupChatOrchestration(
    PlannedOrchestration[TIn, TOut], GroupChatOrchestration[TIn, TOut]
):
    """A ``GroupChatOrchestration``, planned if its manager is round robin with a last round."""

    def _symbolic(self, members: list[Agent]) -> OrchestrationBase[Any, Any]:
        manager = self._manager
        if type(manager) is not RoundRobinGroupChatManager:
            raise CannotPlan(f"its manager is a {type(manager).__name__}")
        if manager.human_response_function is not None:
            raise CannotPlan("its manager may ask a human")
        if manager.max_rounds is None:
            raise CannotPlan("its manager has no max_rounds")
        _check_size(manager.max_rounds - manager.current_round, _MAX_ROUNDS, "rounds")
        return GroupChatOrchestration(members=members, manager=manager.model_copy())


def _check_size(number: int, at_most: int, things: str) -> None:
    if number > at_most:
        raise CannotPlan(f"it has more than {at_most} {things}")


def _bound(member: Any, run: OrchestrationRun) -> Any:
    return Member.of(member, run) if isinstance(member, Agent) else member
