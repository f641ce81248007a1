"""A runtime that carries an orchestration's messages one after the other, at once, and silently.

An orchestration is traced on it. Semantic Kernel's own runtime would do, but it works with tasks of
its own and tells logs and telemetry of each message.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from semantic_kernel.agents.runtime.core.agent import Agent
from semantic_kernel.agents.runtime.core.agent_id import AgentId, CoreAgentId
from semantic_kernel.agents.runtime.core.agent_type import AgentType, CoreAgentType
from semantic_kernel.agents.runtime.core.cancellation_token import CancellationToken
from semantic_kernel.agents.runtime.core.message_context import MessageContext
from semantic_kernel.agents.runtime.core.serialization import MessageSerializer
from semantic_kernel.agents.runtime.core.subscription import Subscription
from semantic_kernel.agents.runtime.core.topic import TopicId
from semantic_kernel.agents.runtime.in_process.agent_instantiation_context import (
    AgentInstantiationContext,
)

#: What makes an actor.
Factory = Callable[[], Agent | Awaitable[Agent]]


@dataclass(frozen=True, slots=True)
class _Envelope:
    message: Any
    to: AgentId | TopicId
    sender: AgentId | None
    token: CancellationToken


class TraceRuntime:
    """Delivers messages in the order in which they were sent; see ``CoreRuntime``.

    Nothing is delivered before :meth:`run`, and a sender gets no response: the actors of the
    orchestrations that are traced do not read any.
    """

    def __init__(self) -> None:
        self._factories: dict[str, Factory] = {}
        self._actors: dict[AgentId, Agent] = {}
        self._subscriptions: list[Subscription] = []
        self._queue: deque[_Envelope] = deque()

    async def run(self, goes_on: Callable[[], bool]) -> None:
        """Deliver messages, as long as there are some and it is to go on."""
        while self._queue and goes_on():
            envelope = self._queue.popleft()
            for actor_id in self._recipients(envelope):
                actor = await self._actor(actor_id)
                await actor.on_message(envelope.message, _context(envelope))

    # --- what actors and orchestrations call ------------------------------------------------------

    async def send_message(
        self,
        message: Any,
        recipient: AgentId,
        *,
        sender: AgentId | None = None,
        cancellation_token: CancellationToken | None = None,
        message_id: str | None = None,
    ) -> None:
        """Take a message for one actor."""
        self._take(message, recipient, sender, cancellation_token)

    async def publish_message(
        self,
        message: Any,
        topic_id: TopicId,
        *,
        sender: AgentId | None = None,
        cancellation_token: CancellationToken | None = None,
        message_id: str | None = None,
    ) -> None:
        """Take a message for all who have subscribed to a topic, but for its sender."""
        self._take(message, topic_id, sender, cancellation_token)

    async def register_factory(
        self,
        type: str | AgentType,
        agent_factory: Factory,
        *,
        expected_class: type[Agent] | None = None,
    ) -> AgentType:
        """Note what makes the actors of a type.

        Raises:
            ValueError: There is one already.
        """
        known = CoreAgentType(type) if isinstance(type, str) else type
        if known.type in self._factories:
            raise ValueError(f"Agent with type {known} already exists.")
        self._factories[known.type] = agent_factory
        return known

    async def add_subscription(self, subscription: Subscription) -> None:
        """Note who reads a topic."""
        self._subscriptions.append(subscription)

    def add_message_serializer(
        self, serializer: MessageSerializer[Any] | Sequence[MessageSerializer[Any]]
    ) -> None:
        """Do nothing: no message leaves the process."""

    async def get(
        self, id_or_type: AgentId | AgentType | str, /, key: str = "default", *, lazy: bool = True
    ) -> AgentId:
        """Return the id of an actor."""
        if isinstance(id_or_type, AgentId):
            return id_or_type
        return CoreAgentId(id_or_type if isinstance(id_or_type, str) else id_or_type.type, key)

    # --- within -----------------------------------------------------------------------------------

    def _take(
        self,
        message: Any,
        to: AgentId | TopicId,
        sender: AgentId | None,
        token: CancellationToken | None,
    ) -> None:
        self._queue.append(_Envelope(message, to, sender, token or CancellationToken()))

    def _recipients(self, envelope: _Envelope) -> list[AgentId]:
        if not isinstance(envelope.to, TopicId):
            return [envelope.to]
        readers = (
            s.map_to_agent(envelope.to) for s in self._subscriptions if s.is_match(envelope.to)
        )
        return [reader for reader in readers if reader != envelope.sender]

    async def _actor(self, actor_id: AgentId) -> Agent:
        if actor_id not in self._actors:
            with AgentInstantiationContext.populate_context((self, actor_id)):  # type: ignore[arg-type]
                made = self._factories[actor_id.type]()
                self._actors[actor_id] = await made if inspect.isawaitable(made) else made
        return self._actors[actor_id]


def _context(envelope: _Envelope) -> MessageContext:
    topic = envelope.to if isinstance(envelope.to, TopicId) else None
    return MessageContext(
        sender=envelope.sender,
        topic_id=topic,
        is_rpc=topic is None,
        cancellation_token=envelope.token,
        message_id="traced",
    )
