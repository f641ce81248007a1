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

from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.planning.watching import show_to_watchers
from parrot_integrations.semantic_kernel.orchestration_members import Member
from parrot_integrations.semantic_kernel.orchestration_plans import (
    MAX_CALLS,
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

#: What a subclass may say without a change of what the agents are asked.
_HARMLESS = frozenset({"t_in", "t_out", "_default_input_transform", "_default_output_transform"})


class PlannedOrchestration(OrchestrationBase[TIn, TOut]):
    """What the planned orchestrations have in common."""

    async def plan(self, task: str | DefaultTypeAlias | TIn) -> Plan:
        """Return the plan for a task; nothing is sent.

        Without calls, its report says why the orchestration is not planned.
        """
        self._set_types()
        return await self._plan(await self._to_messages(task), labels_of(self.name))

    async def invoke(
        self, task: str | DefaultTypeAlias | TIn, runtime: CoreRuntime
    ) -> OrchestrationResult[TOut]:
        """Start the orchestration on a task; see ``OrchestrationBase.invoke``."""
        self._set_types()
        messages = await self._to_messages(task)
        labels = labels_of(self.name)
        plan = await self._plan(messages, labels)
        show_to_watchers([plan])
        run = OrchestrationRun(plan if plan.program.steps else None, labels)
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

    async def _to_messages(self, task: str | DefaultTypeAlias | TIn) -> DefaultTypeAlias:
        """Return what ``OrchestrationBase.invoke`` makes of a task."""
        if isinstance(task, str):
            return ChatMessageContent(role=AuthorRole.USER, content=task)
        if isinstance(task, ChatMessageContent):
            return task
        if isinstance(task, list) and all(isinstance(item, ChatMessageContent) for item in task):
            return task
        if inspect.iscoroutinefunction(self._input_transform):
            made: DefaultTypeAlias = await self._input_transform(task)
        else:
            made = self._input_transform(task)
        return made

    async def _plan(self, messages: DefaultTypeAlias, labels: Labels) -> Plan:
        try:
            self._check_class()
            return await plan_of(self._members, self._symbolic, messages, labels)
        except CannotPlan as exc:
            return no_plan(labels.orchestration, str(exc))
        except Exception as exc:
            # What is wrong with the orchestration shows when it runs; and a defect of ours must not
            # keep it from running.
            _logger.warning("an orchestration could not be planned", exc_info=True)
            return no_plan(labels.orchestration, f"{type(exc).__name__}: {exc}")

    def _check_class(self) -> None:
        for cls in type(self).__mro__:
            if cls.__module__ == __name__:
                return
            for name in vars(cls):
                is_own = hasattr(OrchestrationBase, name) and not name.startswith("__")
                if is_own and name not in _HARMLESS:
                    raise CannotPlan(f"{cls.__name__} has a {name} of its own")


class ParrotSequentialOrchestration(
    PlannedOrchestration[TIn, TOut], SequentialOrchestration[TIn, TOut]
):
    """A ``SequentialOrchestration``, planned: each agent goes on with what the one before said."""

    def _symbolic(self, members: list[Agent]) -> OrchestrationBase[Any, Any]:
        _check_size(len(members))
        return SequentialOrchestration(members=members)


class ParrotConcurrentOrchestration(
    PlannedOrchestration[TIn, TOut], ConcurrentOrchestration[TIn, TOut]
):
    """A ``ConcurrentOrchestration``, planned: all agents work on the same task."""

    def _symbolic(self, members: list[Agent]) -> OrchestrationBase[Any, Any]:
        _check_size(len(members))
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
        _check_size(manager.max_rounds - manager.current_round)
        return GroupChatOrchestration(members=members, manager=manager.model_copy())


def _check_size(num_calls: int) -> None:
    if num_calls > MAX_CALLS:
        raise CannotPlan(f"it has more than {MAX_CALLS} calls")


def _bound(member: Any, run: OrchestrationRun) -> Any:
    return Member.of(member, run) if isinstance(member, Agent) else member
