"""Runs of cached KV blocks in a prefix tree, and the order in which free ones are evicted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

#: What a boundary is here: a name of all before it, and its length in tokens.
Boundary = tuple[Hashable, int]


class KvNode:
    """The blocks between two boundaries of prompts.

    The run begins behind the parent's last block. Its cached blocks are its first ``cached`` ones.
    Whoever holds a block holds all before it, so held blocks are the first ones, too.

    Attributes:
        parent: What comes before; None for a root.
        key: Under which the parent has it.
        start: Blocks before it.
        length: Blocks of the whole run; 0 only for a root.
        cached: How many of them are cached.
        full: Holders of the whole run; all children that are held count as one each.
        partial: Holders of the first blocks only: how many blocks, how many holders.
        children: What goes on from the end of the run.
        free: Its cached blocks that nobody holds, the deepest and so the oldest first.
        names: Boundaries that end here, if boundaries are followed.
        readers: Decoding requests behind or in it, if reads are shared.
    """

    __slots__ = (
        "cached",
        "children",
        "free",
        "full",
        "key",
        "length",
        "names",
        "parent",
        "partial",
        "readers",
        "start",
    )

    def __init__(self, parent: KvNode | None, key: Hashable, start: int, length: int) -> None:
        self.parent = parent
        self.key = key
        self.start = start
        self.length = length
        self.cached = 0
        self.full = 0
        self.partial: dict[int, int] | None = None
        self.children: dict[Hashable, KvNode] = {}
        self.free: list[FreeRun] = []
        self.names: dict[bytes, None] | None = None
        self.readers = 0

    @property
    def end(self) -> int:
        """Blocks up to the end of the run."""
        return self.start + self.length

    @property
    def num_held(self) -> int:
        """How many of its blocks somebody holds."""
        if self.full:
            return self.length
        return max(self.partial) if self.partial else 0

    def path(self) -> list[KvNode]:
        """Return the nodes from the first one down to this one, without the root."""
        nodes = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def add_partial(self, depth: int) -> None:
        """Add a holder of the first blocks."""
        if self.partial is None:
            self.partial = {}
        self.partial[depth] = self.partial.get(depth, 0) + 1

    def drop_partial(self, depth: int) -> None:
        """Take such a holder away."""
        assert self.partial is not None
        self.partial[depth] -= 1
        if not self.partial[depth]:
            del self.partial[depth]


class Hold:
    """What one request holds: all cached blocks up to a place in the tree, and copies beside.

    Attributes:
        node: The deepest node of which it holds blocks; a root if it holds none.
        depth: How many of that node's blocks.
        copies: Blocks that it computed though their content was held already.
    """

    __slots__ = ("copies", "depth", "node")

    def __init__(self, node: KvNode, depth: int) -> None:
        self.node = node
        self.depth = depth
        self.copies = 0

    @property
    def num_blocks(self) -> int:
        """Blocks of its prompt that are in the tree."""
        return self.node.start + self.depth


class FreeRun:
    """Cached blocks of one node that became free together: ``[low, high)`` of its run."""

    __slots__ = ("high", "low", "node")

    def __init__(self, node: KvNode, low: int, high: int) -> None:
        self.node = node
        self.low = low
        self.high = high


#: Free runs, the one to evict from first.
FreeQueue = OrderedDict[FreeRun, None]
