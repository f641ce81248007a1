"""What looking at one call may cost, whatever its texts are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: What comparing two texts costs beside the characters compared, and what telling costs that it is
#: not worth it, in characters (measured: 2.5 us, 0.3 us, and 0.5 ns for each character).
COMPARISON_COST, TEST_COST = 4096, 512

#: Comparisons for any call, and one more for so many characters. Real prompts need up
#: to half (16 agents, 70,000 characters); one that is made to cost time is left as plain text from
#: where they are spent.
_FREE_COMPARISONS, _CHARS_PER_COMPARISON = 256, 32

#: Characters of one call that are read: looked up, and remembered. It takes about 20 ms.
MAX_CHARS_READ = 2**18

#: What a text costs beside its characters: to be looked for as a whole, and to be read.
_LOOK_CHARS, _READ_CHARS = 16, 112

#: Looking for a text as a whole costs a hash of so many characters for that of one read.
_HASHED_PER_READ = 16


@dataclass(slots=True)
class Budget:
    """What is left for a call.

    Attributes:
        work_left: For comparisons, in characters compared.
        chars_left: For reading, in characters.
    """

    work_left: int
    chars_left: int = MAX_CHARS_READ

    @classmethod
    def of(cls, texts: Iterable[str]) -> Budget:
        """Return the budget of a call with these texts."""
        num_chars = min(sum(map(len, texts)), MAX_CHARS_READ)
        return cls((_FREE_COMPARISONS + num_chars // _CHARS_PER_COMPARISON) * COMPARISON_COST)

    @property
    def is_spent(self) -> bool:
        """Nothing may be compared any more."""
        return self.work_left <= 0

    def may_look(self, num_chars: int) -> bool:
        """Pay for looking for a text as a whole, if there is enough left."""
        return self._pay(_LOOK_CHARS + num_chars // _HASHED_PER_READ)

    def may_read(self, num_chars: int) -> bool:
        """Pay for reading so much of a text, if there is enough left."""
        return not self.is_spent and self._pay(_READ_CHARS + num_chars)

    def _pay(self, num_chars: int) -> bool:
        if num_chars > self.chars_left:
            return False
        self.chars_left -= num_chars
        return True
