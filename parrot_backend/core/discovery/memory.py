"""What is worth remembering: what came again, and of all the rest the newest."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Entry(NamedTuple, Generic[_Value]):
    value: _Value
    size_bytes: int


class Memory(Generic[_Key, _Value]):
    """Values by key, within bounds; the least recently used go first.

    What has come only once makes room before anything that was of use, however much of it there
    is. Such entries have half of the room, and so have the others.

    Args:
        max_entries: How many there may be.
        max_bytes: How much memory they may take, as the caller counts it.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._new = _Half[_Key, _Value](max_entries // 2, max_bytes // 2)
        self._used = _Half[_Key, _Value](max_entries // 2, max_bytes // 2)

    def __len__(self) -> int:
        return len(self._new.entries) + len(self._used.entries)

    @property
    def num_bytes(self) -> int:
        """How much memory the entries take."""
        return self._new.num_bytes + self._used.num_bytes

    def use(self, key: _Key) -> _Value | None:
        """Return the value of a key, which counts as a use of it."""
        entry = self._used.entries.get(key)
        if entry is not None:
            self._used.entries.move_to_end(key)
            return entry.value
        entry = self._new.take(key)
        if entry is None:
            return None
        self._used.put(key, entry)
        return entry.value

    def put(self, key: _Key, value: _Value, size_bytes: int) -> None:
        """Set the value of a key; if there was one before, it has come again."""
        is_known = self._new.take(key) is not None or self._used.take(key) is not None
        half = self._used if is_known else self._new
        half.put(key, _Entry(value, size_bytes))


class _Half(Generic[_Key, _Value]):
    """Entries in order of use."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.entries: OrderedDict[_Key, _Entry[_Value]] = OrderedDict()
        self.num_bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes

    def take(self, key: _Key) -> _Entry[_Value] | None:
        """Take an entry out."""
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.num_bytes -= entry.size_bytes
        return entry

    def put(self, key: _Key, entry: _Entry[_Value]) -> None:
        """Put in an entry that is not there, and make room for it."""
        self.entries[key] = entry
        self.num_bytes += entry.size_bytes
        while len(self.entries) > self._max_entries or self.num_bytes > self._max_bytes:
            self.take(next(iter(self.entries)))
