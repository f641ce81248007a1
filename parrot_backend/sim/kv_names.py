"""Which boundaries of prompts the cache holds, exactly, and what there is to tell of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.sim.kv_node import KvNode

#: Beyond this, the boundaries learnt least recently are forgotten (the plug-in's number).
_MAX_NAMES = 8192


class NameBook:
    """Follows boundaries: each stands at a node, and is held while its last full block is cached.

    Args:
        block_tokens: Tokens of one block; what is told counts full blocks only.
        tells: Whether anybody asks what has changed.
    """

    def __init__(self, block_tokens: int, *, tells: bool = True) -> None:
        self._block_tokens = block_tokens
        self._tells = tells
        self._nodes: OrderedDict[bytes, KvNode] = OrderedDict()
        self._blocks: dict[bytes, int] = {}  # of those that are held
        self._told: dict[bytes, int] = {}
        self._touched: dict[bytes, None] = {}

    @property
    def has_changes(self) -> bool:
        """Whether there may be something to tell."""
        return bool(self._touched)

    def node_of(self, key: bytes) -> KvNode | None:
        """Return where a boundary ends that is held, else None."""
        return self._nodes[key] if key in self._blocks else None

    def learn(self, chain: Sequence[tuple[object, int]], node: KvNode) -> list[bytes]:
        """Take in the boundaries of a prompt that is computed up to a place in a node.

        Returns:
            Those that are held since.
        """
        new = []
        for key, tokens in reversed(chain):
            end = tokens // self._block_tokens
            while node.start >= end and node.parent is not None:
                node = node.parent
            if not end or end != node.start + node.length or node.cached < node.length:
                continue
            if isinstance(key, bytes) and self._is_new(key):
                self.put(key, node, end)
                new.append(key)
        return new

    def _is_new(self, key: bytes) -> bool:
        if key not in self._blocks:
            return True
        self._nodes.move_to_end(key)
        return False

    def put(self, key: bytes, node: KvNode, num_blocks: int) -> None:
        """Note that a boundary is held now."""
        old = self._nodes.get(key)
        if old is not None and old is not node and old.names:
            old.names.pop(key, None)
        if node.names is None:
            node.names = {}
        node.names[key] = None
        self._nodes[key] = node
        self._nodes.move_to_end(key)
        self._blocks[key] = num_blocks
        if self._tells:
            self._touched[key] = None
        if len(self._nodes) > _MAX_NAMES:
            oldest = next(iter(self._nodes))
            self._forget(oldest)

    def lost(self, node: KvNode) -> None:
        """Note that the last blocks of a node are cached no longer."""
        for key in node.names or ():
            self._forget(key, stays=node)
        node.names = None

    def take_changes(self) -> tuple[tuple[PrefixBoundary, ...], tuple[bytes, ...]]:
        """Return what is held now and was not, or otherwise, and what was held and is not."""
        held, lost = [], []
        for key in self._touched:
            blocks = self._blocks.get(key, 0)
            if blocks == self._told.get(key, 0):
                continue
            if blocks:
                self._told[key] = blocks
                held.append(PrefixBoundary(key, blocks * self._block_tokens))
            else:
                del self._told[key]
                lost.append(key)
        self._touched.clear()
        return tuple(held), tuple(lost)

    def _forget(self, key: bytes, stays: KvNode | None = None) -> None:
        node = self._nodes.pop(key)
        if node is not stays and node.names:
            node.names.pop(key, None)
        del self._blocks[key]
        if self._tells:
            self._touched[key] = None
