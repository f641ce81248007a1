"""Which beginnings the prompts of a program have in common: a tree of their pieces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from parrot_backend.sim.program import Constant, Output, Piece, Program, ProgramCall

ROOT = 0

#: A piece as part of a prefix: a text with its length, or the output of a call.
_Edge = tuple[str, int]

#: Stands for the length of an output, which is as long as its call makes it.
_OUTPUT = -1


@dataclass(slots=True)
class PromptTree:
    """Prefixes of prompts as nodes of a tree; equal prefixes are one node.

    Attributes:
        parent: Of each node, by number; the root is its own.
        tokens: Length of each node's last piece.
        end_tokens: Length of each node's whole prefix.
        paths: Nodes of each call's prompt, shortest prefix first, without the root.
        ended: Node of each call's prompt and output: the engine holds it when the call has ended.
    """

    parent: list[int] = field(default_factory=lambda: [ROOT])
    tokens: list[int] = field(default_factory=lambda: [0])
    end_tokens: list[int] = field(default_factory=lambda: [0])
    paths: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    _children: dict[tuple[int, _Edge], int] = field(default_factory=dict)
    _output_tokens: dict[str, int] = field(default_factory=dict)

    def add(self, call: ProgramCall) -> None:
        """Add a call's prompt, and its prompt with its output, which engines hold too."""
        self._output_tokens[call.name] = call.output_tokens
        path = self._follow(call.prompt)
        self.paths[call.name] = path
        self.ended[call.name] = self._step(path[-1], Output(call.name))

    def known(self, program: Program) -> frozenset[int]:
        """Return the nodes that an earlier program's prompts contain: constants alone."""
        found = set[int]()
        for call in program.calls:
            node: int | None = ROOT
            for piece in call.prompt:
                edge = None if isinstance(piece, Output) else _edge(piece)
                node = None if edge is None or node is None else self._children.get((node, edge))
                if node is None:
                    break
                found.add(node)
        return frozenset(found)

    def _follow(self, pieces: Iterable[Piece]) -> tuple[int, ...]:
        node = ROOT
        path = list[int]()
        for piece in pieces:
            node = self._step(node, piece)
            path.append(node)
        return tuple(path)

    def _step(self, node: int, piece: Piece) -> int:
        key = (node, _edge(piece))
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = len(self.parent)
            tokens = (
                piece.tokens if isinstance(piece, Constant) else self._output_tokens[piece.call]
            )
            self.parent.append(node)
            self.tokens.append(tokens)
            self.end_tokens.append(self.end_tokens[node] + tokens)
        return child


def _edge(piece: Piece) -> _Edge:
    if isinstance(piece, Output):
        return piece.call, _OUTPUT
    return piece.key, piece.tokens
