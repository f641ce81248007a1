from __future__ import annotations

from parrot_backend.core.discovery.memory import Memory


def _known(memory: Memory[str, int], keys: str) -> str:
    return "".join(key for key in keys if memory.use(key) is not None)


def test_the_oldest_of_what_came_once_goes_first() -> None:
    memory: Memory[str, int] = Memory(8, 10_000)
    for number, key in enumerate("abcdef"):
        memory.put(key, number, 1)
    assert _known(memory, "abcdef") == "cdef"


def test_what_came_again_or_was_used_outlasts_what_came_once() -> None:
    memory: Memory[str, int] = Memory(8, 10_000)
    memory.put("a", 1, 1)
    memory.put("a", 2, 1)
    memory.put("b", 3, 1)
    assert memory.use("b") == 3
    for key in "cdefghij":
        memory.put(key, 0, 1)
    assert memory.use("a") == 2
    assert _known(memory, "bcdefghij") == "bghij"


def test_the_least_recently_used_of_these_goes_first() -> None:
    memory: Memory[str, int] = Memory(4, 10_000)
    for key in "abac":
        memory.put(key, 0, 1)
        memory.use(key)
    assert len(memory) == 2
    assert _known(memory, "abc") == "ac"


def test_memory_is_bounded_in_bytes() -> None:
    memory: Memory[str, int] = Memory(100, 100)
    for number, key in enumerate("abcdefgh"):
        memory.put(key, number, 20)
        assert memory.num_bytes <= 100
    assert len(memory) == 2
    memory.put("h", 0, 45)
    assert (len(memory), memory.num_bytes) == (2, 65)
    memory.put("huge", 0, 1000)
    assert memory.use("huge") is None
    assert memory.num_bytes == 45
