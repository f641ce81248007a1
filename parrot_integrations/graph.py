"""The recorder: calls and variables of one program, as the nodes of its graph.

In: what semantic functions, transforms and external variables ask for. Out: wire nodes, each
handed over exactly once by :meth:`GraphRecorder.take`. Names are made from the Python names, with
a number from the second use on, and are unique within the program.

Pure: no I/O, no clock, no locks; the program that owns a recorder keeps threads apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from parrot_backend.protocol import (
    MAX_NAME_CHARS,
    InputSegment,
    OutputSegment,
    Sampling,
    TextSegment,
    TransformNode,
    VariableDeclaration,
    WireNode,
    WireTransform,
)
from parrot_integrations.templates import Argument, PromptTemplate

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-]+")
#: Room for the number that makes a name unique.
_MAX_BASE_CHARS = MAX_NAME_CHARS - 12


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a call is generated.

    Attributes:
        sampling: Parameters of its outputs.
        sampling_of_output: Parameters of single outputs, by placeholder, instead.
        model: None is the server's default.
    """

    sampling: Sampling = Sampling()  # noqa: RUF009 - immutable
    sampling_of_output: Mapping[str, Sampling] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True, slots=True)
class GraphDelta:
    """What was recorded since the last delta.

    Attributes:
        variables: External variables.
        nodes: Calls and transforms, in the order of recording.
        inputs: Names of the variables that the nodes read.
        leaves: Names of the outputs that nothing recorded so far reads.
        names: Names of all variables that the delta brings.
    """

    variables: tuple[VariableDeclaration, ...]
    nodes: tuple[WireNode, ...]
    inputs: frozenset[str]
    leaves: tuple[str, ...]
    names: frozenset[str]


class NameBook:
    """Names that are unique, made from hints."""

    def __init__(self) -> None:
        self._uses_of_base: dict[str, int] = {}

    def unique(self, hint: str) -> str:
        """Return a name that was not given before, as like the hint as possible."""
        base = _NOT_IN_NAMES.sub("_", hint)[:_MAX_BASE_CHARS].lstrip("-") or "_"
        uses = self._uses_of_base.get(base, 0) + 1
        self._uses_of_base[base] = uses
        return base if uses == 1 else self._unique_numbered(base, uses)

    def _unique_numbered(self, base: str, uses: int) -> str:
        # The numbered name may itself be somebody's base ("f-2" written by the user).
        while (name := f"{base}-{uses}") in self._uses_of_base:
            uses += 1
        self._uses_of_base[base] = uses
        self._uses_of_base[name] = 1
        return name


class GraphRecorder:
    """Collects one program's graph."""

    def __init__(self) -> None:
        self._names = NameBook()
        self._variables: dict[str, str | None] = {}
        self._nodes: list[WireNode] = []
        self._outputs: list[str] = []
        self._inputs: set[str] = set()
        self._ever_read: set[str] = set()

    def add_external(self, hint: str, value: str | None) -> str:
        """Record an external variable and return its name; ``value`` None is set later."""
        name = self._names.unique(hint)
        self._variables[name] = value
        return name

    def set_external(self, name: str, value: str) -> bool:
        """Give a recorded external variable its value; False if it was taken already."""
        if name not in self._variables:
            return False
        self._variables[name] = value
        return True

    def add_call(
        self,
        hint: str,
        template: PromptTemplate,
        arguments: Mapping[str, Argument],
        options: CallOptions,
    ) -> dict[str, str]:
        """Record a call and return the variable's name of each output placeholder."""
        names = {output: self._names.unique(f"{hint}-{output}") for output in template.outputs}
        outputs = {
            output: OutputSegment(variable=name, sampling=options.sampling_of_output.get(output))
            for output, name in names.items()
        }
        node = template.fill(
            self._names.unique(hint),
            arguments,
            outputs,
            sampling=options.sampling,
            model=options.model,
        )
        used = [arguments[name] for name in template.inputs]
        self._add_node(node, used, names.values())
        return names

    def add_transform(
        self,
        hint: str,
        content: tuple[TextSegment | InputSegment, ...],
        transforms: tuple[WireTransform, ...] = (),
    ) -> str:
        """Record a text computed on the server and return its variable's name."""
        name = self._names.unique(hint)
        node = TransformNode(name=name, content=content, transforms=transforms, output=name)
        self._add_node(node, content, (name,))
        return name

    def take(self) -> GraphDelta | None:
        """Hand over what was recorded since the last time; None if that is nothing."""
        if not self._nodes and not self._variables:
            return None
        delta = GraphDelta(
            variables=tuple(
                VariableDeclaration(name=name, value=value)
                for name, value in self._variables.items()
            ),
            nodes=tuple(self._nodes),
            inputs=frozenset(self._inputs),
            leaves=tuple(name for name in self._outputs if name not in self._ever_read),
            names=frozenset([*self._variables, *self._outputs]),
        )
        for recorded in (self._variables, self._nodes, self._outputs, self._inputs):
            recorded.clear()
        return delta

    def _add_node(self, node: WireNode, used: Iterable[Argument], outputs: Iterable[str]) -> None:
        read = [segment.variable for segment in used if isinstance(segment, InputSegment)]
        self._nodes.append(node)
        self._outputs.extend(outputs)
        self._inputs.update(read)
        self._ever_read.update(read)
