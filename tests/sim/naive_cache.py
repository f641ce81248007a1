"""The KV cache of the simulator once more, block by block: slow, and simple enough to trust."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

Chain = Sequence[tuple[Hashable, int]]


class NaiveHold:
    def __init__(self, contents: list[Hashable], num_private: int = 0) -> None:
        self.contents = contents
        self.num_private = num_private  # blocks that nobody can find, copies among them


class NaiveCache:
    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.num_blank = num_blocks
        self.holders: dict[Hashable, int] = {}  # of each cached block
        self.queue: list[Hashable] = []  # cached blocks that nobody holds

    @property
    def num_free(self) -> int:
        return self.num_blank + len(self.queue)

    def contents(self, tenant: str, chain: Chain) -> list[Hashable]:
        """Return a name for each full block of a prompt: all boundaries up to the one behind it."""
        names: list[Hashable] = []
        path: tuple[Hashable, ...] = (tenant,)
        for key, tokens in chain:
            end = tokens // self.block_tokens
            if end > len(names):
                path = (*path, key)
                names.extend((path, i) for i in range(len(names), end))
        return names

    def find(self, tenant: str, chain: Chain, max_blocks: int) -> list[Hashable]:
        found = []
        for name in self.contents(tenant, chain)[:max_blocks]:
            if name not in self.holders:
                break
            found.append(name)
        return found

    def num_needed(self, found: list[Hashable], tokens: int) -> int:
        free = sum(not self.holders[name] for name in found)
        return -(-tokens // self.block_tokens) - len(found) + free

    def hold(self, found: list[Hashable]) -> NaiveHold:
        for name in found:
            self._add_holder(name)
        return NaiveHold(list(found))

    def take(self, num_blocks: int) -> None:
        for _ in range(num_blocks):
            if self.num_blank:
                self.num_blank -= 1
            else:
                del self.holders[self.queue.pop(0)]

    def store(self, hold: NaiveHold, tenant: str, chain: Chain, tokens: int) -> None:
        """Put taken blocks into the cache; the caller counts them as private before."""
        names = self.contents(tenant, chain)[: tokens // self.block_tokens]
        for name in names[len(hold.contents) :]:
            if name not in self.holders:
                self.holders[name] = 1
                hold.num_private -= 1
            elif not self.holders[name]:
                self.queue.remove(name)
                self.num_blank += 1
                self.holders[name] = 1
                hold.num_private -= 1
            else:
                self.holders[name] += 1
            hold.contents.append(name)

    def release(self, hold: NaiveHold, tail: list[Hashable]) -> None:
        self.num_blank += hold.num_private
        for name in reversed(tail):
            self.num_blank -= 1
            self.holders[name] = 0
            self.queue.append(name)
        for name in reversed(hold.contents):
            self.holders[name] -= 1
            if not self.holders[name]:
                self.queue.append(name)

    def _add_holder(self, name: Hashable) -> None:
        if not self.holders[name]:
            self.queue.remove(name)
        self.holders[name] += 1
