"""Paged KV memory with a prefix cache, kept by runs of blocks and not block by block.

Prompts share what is before a common boundary, in whole blocks; the block in which a boundary falls
is not shared. Free blocks are handed out in vLLM's order: first those without content, then the
cached ones, the longest free first, and of those freed together the tail first. (vLLM 0.32:
``BlockPool.free_blocks``.)

A block that a request computes although its content is cached is a second copy. If nobody holds the
first copy, the second replaces it; else the request holds both until it ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from parrot_backend.sim.kv_names import NameBook
from parrot_backend.sim.kv_node import Boundary, FreeQueue, FreeRun, Hold, KvNode


class KvCache:
    """Blocks of one engine.

    Args:
        num_blocks: How many there are.
        block_tokens: Tokens of one.

        names: Is told which boundaries are cached no longer; None if nobody asks.

    Attributes:
        num_free: Blocks that nobody holds, cached or not.
    """

    def __init__(self, num_blocks: int, block_tokens: int, names: NameBook | None = None) -> None:
        self.names = names
        self.block_tokens = block_tokens
        self.num_blocks = num_blocks
        self.num_free = num_blocks
        self._num_blank = num_blocks
        self._roots: dict[str, KvNode] = {}
        self._queue: FreeQueue = OrderedDict()

    @property
    def num_cached(self) -> int:
        """Blocks with content, held by somebody in the tree or by nobody; copies do not count."""
        return sum(node.cached for node in self.nodes())

    def nodes(self) -> list[KvNode]:
        """Return all nodes that have blocks."""
        found: list[KvNode] = []
        left = list(self._roots.values())
        while left:
            node = left.pop()
            left.extend(node.children.values())
            if node.length:
                found.append(node)
        return found

    # --- looking ------------------------------------------------------------------------------

    def find(self, tenant: str, chain: Sequence[Boundary], max_blocks: int) -> tuple[KvNode, int]:
        """Return how far a prompt is cached: the deepest node, and how many of its blocks.

        Args:
            tenant: Whose prompt it is.
            chain: Its boundaries, shortest first.
            max_blocks: It is of no use to find more.
        """
        node = self._roots.get(tenant)
        if node is None:
            node = self._roots[tenant] = KvNode(None, tenant, 0, 0)
        block_tokens, end = self.block_tokens, 0
        for key, tokens in chain:
            if tokens // block_tokens == end:
                continue  # it ends in the block that the boundary before ends in
            child = node.children.get(key)
            if child is None:
                break
            node = child
            if child.cached < child.length:
                break
            end = child.start + child.length
        while node.start >= max_blocks and node.parent is not None:
            node = node.parent
        return node, min(node.cached, max_blocks - node.start)

    def num_needed(self, node: KvNode, depth: int, tokens: int) -> int:
        """Return how many free blocks it takes to hold what was found, and to compute up to here.

        Args:
            node: As found.
            depth: As found.
            tokens: How many are to be computed in all.
        """
        needed = -(-tokens // self.block_tokens) - node.start - depth
        while node.parent is not None:
            held = node.num_held
            needed += max(0, depth - held)
            if held:
                break
            node = node.parent
            depth = node.length
        return needed

    # --- holding ------------------------------------------------------------------------------

    def hold(self, node: KvNode, depth: int) -> Hold:
        """Hold what was found."""
        if depth:
            self._hold(node, depth)
        return Hold(node, depth)

    def take(self, num_blocks: int) -> None:
        """Take free blocks for content that nobody can share, evicting what they held.

        There must be as many.
        """
        assert num_blocks <= self.num_free, "more blocks are taken than are free"
        self.num_free -= num_blocks
        self._num_blank -= num_blocks
        if self._num_blank < 0:
            self._evict(-self._num_blank)
            self._num_blank = 0

    def store(self, hold: Hold, chain: Sequence[Boundary], tokens: int) -> None:
        """Put blocks that were taken for a prompt into the tree, so that others find them.

        Args:
            hold: What the request holds; goes on to the last full block.
            chain: Boundaries of its prompt.
            tokens: So many are computed.
        """
        block_tokens, last = self.block_tokens, tokens // self.block_tokens
        node, depth = hold.node, hold.depth
        for key, boundary_tokens in chain:
            end = boundary_tokens // block_tokens
            if end <= node.start + depth:
                continue
            if node.start + depth >= last:
                break
            if depth == node.length:  # else it goes on within this node
                child = node.children.get(key)
                if child is None:
                    child = KvNode(node, key, node.end, end - node.end)
                    node.children[key] = child
                node, depth = child, 0
            new_depth = min(node.length, last - node.start)
            self._go_on(hold, node, depth, new_depth)
            depth = new_depth

    def release(self, hold: Hold, tokens: int, tail: Boundary | None = None) -> None:
        """Hold nothing any longer; what was computed stays cached until it is evicted.

        Args:
            hold: Not to be used again.
            tokens: So many tokens have their KV in blocks of this request.
            tail: If all of the prompt is stored: names what comes after it, and says how long
                prompt and tail are. Its full blocks become cached.
        """
        node, depth = hold.node, hold.depth
        num_private = -(-tokens // self.block_tokens) - node.start - depth
        self._give_back(num_private + hold.copies)
        if tail is not None and depth == node.length:
            num_full = tokens // self.block_tokens - node.end
            if num_full > 0:
                self._add_tail(node, tail, num_full)
        if depth:
            self._let_go(node, depth)

    def name_tail(self, node: KvNode, old: Hashable, new: Hashable) -> None:
        """Let prompts that go on behind a tail find it, if it is cached still.

        Args:
            node: What the tail follows.
            old: The tail's name so far.
            new: The hash of the boundary at its end.
        """
        if old in node.children and new not in node.children:
            tail = node.children.pop(old)
            tail.key = new
            node.children[new] = tail

    def _add_tail(self, node: KvNode, tail: Boundary, num_cached: int) -> None:
        """Turn private blocks, just given back, into cached ones that nobody holds."""
        key, tokens = tail
        length = tokens // self.block_tokens - node.end
        if key in node.children:
            return
        self._num_blank -= num_cached
        if node.key == key:  # it was preempted, and has gone on behind its own tail
            low = node.length
            node.full -= 1
            node.add_partial(low)
            node.length += length
        else:
            low = 0
            node.children[key] = KvNode(node, key, node.end, length)
            node = node.children[key]
        node.cached = low + num_cached
        self._line_up(node, low, node.cached)

    def _go_on(self, hold: Hold, node: KvNode, depth: int, new_depth: int) -> None:
        """Hold more blocks of a node, which the request has just computed."""
        is_copied = min(node.cached, new_depth) - depth
        if is_copied > 0:
            num_replaced = max(0, min(node.cached, new_depth) - max(node.num_held, depth))
            hold.copies += is_copied - num_replaced
            self._give_back(num_replaced)  # the claim below takes as many again
        node.cached = max(node.cached, new_depth)
        self._hold(node, new_depth)
        if depth:
            self._let_go(node, depth)
        elif hold.depth:  # what comes before is held through the new node
            self._let_go(hold.node, hold.depth)
        hold.node, hold.depth = node, new_depth

    def _hold(self, node: KvNode, depth: int) -> None:
        while node.parent is not None:
            held = node.num_held
            if depth == node.length:
                node.full += 1
            else:
                node.add_partial(depth)
            if node.free and held < depth:
                self._claim(node, depth)
            if held:
                return
            node = node.parent
            depth = node.length

    def _let_go(self, node: KvNode, depth: int) -> None:
        while node.parent is not None:
            if depth == node.length:
                node.full -= 1
            else:
                node.drop_partial(depth)
            held = node.num_held
            if held >= depth:
                return
            self.num_free += depth - held
            self._line_up(node, held, depth)
            if held:
                return
            node = node.parent
            depth = node.length

    # --- free blocks --------------------------------------------------------------------------

    def _give_back(self, num_blocks: int) -> None:
        """Blocks without content are free: they are the next to be taken."""
        self.num_free += num_blocks
        self._num_blank += num_blocks

    def _line_up(self, node: KvNode, low: int, high: int) -> None:
        run = FreeRun(node, low, high)
        node.free.append(run)
        self._queue[run] = None

    def _claim(self, node: KvNode, depth: int) -> None:
        """Take the free blocks among the first ones of a node out of the queue."""
        while node.free:
            run = node.free[-1]
            if run.low >= depth:
                return
            if run.high > depth:
                self.num_free -= depth - run.low
                run.low = depth
                return
            self.num_free -= run.high - run.low
            node.free.pop()
            del self._queue[run]

    def _evict(self, num_blocks: int) -> None:
        """Forget the content of free blocks, the oldest first."""
        while num_blocks:
            run = next(iter(self._queue))
            node, taken = run.node, min(num_blocks, run.high - run.low)
            run.high -= taken
            node.cached -= taken
            num_blocks -= taken
            if node.names and self.names is not None:
                self.names.lost(node)
            if run.high == run.low:
                del self._queue[run]
                del node.free[0]
            if not node.cached:
                assert node.parent is not None
                del node.parent.children[node.key]
