"""Nodes of a program graph: calls of a model, texts computed on the server, and control flow.

A control node holds sub-graphs, its *bodies*. Within a body, names are local: a node of the body
may read the variables that the body makes, its parameters, and every variable of the surrounding
graph. When the node runs, each *instance* of a body gets names of its own, ``node:index:local``;
they can be read like all others, from the moment that the value which decides on them is ready.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from parrot_backend.protocol.base import Labels, Many, Name, WireModel
from parrot_backend.protocol.chat import Tool, ToolChoice
from parrot_backend.protocol.prompts import InputSegment, Message, PromptContent, Sampling
from parrot_backend.protocol.transforms import WireTransform


class CallNode(WireModel):
    """One call of a model: a raw ``prompt`` or chat ``messages``, with one or more outputs.

    Several outputs in one prompt are generated in order, each with everything before it as context.

    Attributes:
        model: None takes the server's default model.
        tools: What the model may ask the client to call; for chats with one output.
        parallel_tool_calls: Whether it may ask for several calls at once.
        chat_template_kwargs: Further arguments of the model's chat template.
        stage: Which part of the program this is, such as an agent's name; advice alone.
    """

    kind: Literal["call"] = "call"
    name: Name
    prompt: PromptContent | None = None
    messages: Many[Message] | None = Field(default=None, min_length=1)
    sampling: Sampling = Sampling()
    model: str | None = None
    tools: Many[Tool] = Field(default=(), max_length=128)
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    chat_template_kwargs: Labels = Field(default_factory=dict, max_length=16)
    stage: str | None = Field(default=None, min_length=1, max_length=1024)

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.messages is None and (self.tools or self.chat_template_kwargs):
            raise ValueError("tools and chat_template_kwargs need messages")
        return self


class TransformNode(WireModel):
    """A text computed on the server: segments in order, then transforms."""

    kind: Literal["transform"] = "transform"
    name: Name
    content: PromptContent
    transforms: Many[WireTransform] = ()
    output: Name


ConditionOp = Literal["contains", "equals", "starts_with", "ends_with", "is_empty"]


class Condition(WireModel):
    """A question about a value, from a closed set.

    ``is_empty`` is true of white space alone, and takes no ``text``.
    """

    input: InputSegment
    op: ConditionOp
    text: str = ""
    ignore_case: bool = False
    negate: bool = False


class Body(WireModel):
    """A sub-graph; ``result`` is one of its variables, or one of the surrounding graph."""

    nodes: Many[WireNode] = ()
    result: Name


class MapNode(WireModel):
    """The same sub-graph for each item of a list that is only known when it has been generated.

    Attributes:
        items: Where the list comes from; after the transforms it must be a JSON array.
        item: Name of the body's parameter; items that are no strings are passed as JSON.
        output: The results, in order, as a JSON array of strings.
        max_items: A longer list is an error.
    """

    kind: Literal["map"] = "map"
    name: Name
    items: InputSegment
    item: Name
    body: Body
    output: Name
    max_items: int = Field(default=256, ge=1, le=1024)


class Case(WireModel):
    """One way to go on, if the condition holds."""

    when: Condition
    body: Body


class BranchNode(WireModel):
    """The first case whose condition holds; its body's result is the output.

    The conditions' values decide when all of them are there.
    """

    kind: Literal["branch"] = "branch"
    name: Name
    cases: Many[Case] = Field(min_length=1, max_length=32)
    otherwise: Body
    output: Name


class LoopVariable(WireModel):
    """A body's parameter that changes from round to round.

    Attributes:
        name: The parameter.
        initial: Variable of the surrounding graph, for the first round.
        next: Variable of the body, for the round after; or the parameter itself.
    """

    name: Name
    initial: Name
    next: Name


class LoopNode(WireModel):
    """A sub-graph that runs until a condition on its variables holds, at least once.

    Attributes:
        until: Its input is a variable of the body.
        max_rounds: After so many rounds it ends in any case.
        output: The body's result in the last round.
    """

    kind: Literal["loop"] = "loop"
    name: Name
    variables: Many[LoopVariable] = Field(default=(), max_length=32)
    body: Body
    until: Condition
    max_rounds: int = Field(ge=1, le=64)
    output: Name


WireNode = Annotated[
    CallNode | TransformNode | MapNode | BranchNode | LoopNode, Field(discriminator="kind")
]

Body.model_rebuild()
for _model in (MapNode, Case, BranchNode, LoopNode):
    _model.model_rebuild()
