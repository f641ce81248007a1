"""What the attention backend counts and is told, in memory that an engine's processes share.

The backend runs in vLLM's workers, the policy in its core: sometimes one process, sometimes not. A
call between them would wait for the step in flight, so both look at one small mapped file, which
has no name any more once the policy has found it. Imports neither vLLM nor torch.
"""

from __future__ import annotations

import atexit
import mmap
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_NUM_WORDS = 8
_IS_OFF, _NUM_PLAIN, _NUM_SHARING, _STEPS, _SHARED_STEPS, _KV_TOKENS, _KV_TOKENS_READ = range(7)
#: The state until a backend of ours has come.
_NOT_OURS = "another attention backend runs here"
_WORD_BYTES = 8
_STATE_START = _NUM_WORDS * _WORD_BYTES
_SIZE_BYTES = 512
_MAX_STATE_BYTES = _SIZE_BYTES - _STATE_START


@dataclass(frozen=True, slots=True)
class AttentionFigures:
    """What attention did since the engine began; one KV cache group of a step counts once.

    Attributes:
        state: ``on``, ``off``, or why requests share reads in no layer of this engine.
        steps: Steps that computed attention.
        shared_steps: Those of them in which requests shared reads.
        kv_tokens: Tokens of KV that each layer would have read without sharing.
        kv_tokens_read: Those that it read.
    """

    state: str
    steps: int
    shared_steps: int
    kv_tokens: int
    kv_tokens_read: int


class AttentionBoard:
    """The file of one engine. One process writes counters; words of eight bytes are never torn.

    Args:
        path: The file; made if it is not there.

    Raises:
        OSError: It cannot be made, or is not ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        number = os.open(path, flags, 0o600)
        try:
            if os.fstat(number).st_uid != os.getuid():
                raise PermissionError(f"{path} belongs to somebody else")
            os.ftruncate(number, _SIZE_BYTES)
            self._memory = mmap.mmap(number, _SIZE_BYTES)
        finally:
            os.close(number)
        self._words = memoryview(self._memory)[:_STATE_START].cast("q")

    def forget_name(self) -> None:
        """Remove the file's name: all who want it have it."""
        self._path.unlink(missing_ok=True)

    @property
    def is_on(self) -> bool:
        """Whether requests may share reads."""
        return not self._words[_IS_OFF]

    @is_on.setter
    def is_on(self, value: bool) -> None:
        self._words[_IS_OFF] = not value

    def attach(self, why_plain: str | None = None) -> None:
        """Note that a backend of ours computes a part of the layers.

        Args:
            why_plain: Why requests never share reads there; None if they may.
        """
        if why_plain is None:
            self._words[_NUM_SHARING] += 1
            return
        text = why_plain.encode()[: _MAX_STATE_BYTES - 1]
        self._memory[_STATE_START : _STATE_START + len(text) + 1] = text + b"\0"
        self._words[_NUM_PLAIN] += 1

    def give_up(self, why_plain: str) -> None:
        """Note that layers where requests could share reads do so no longer."""
        self._words[_NUM_SHARING] -= 1
        self.attach(why_plain)

    def count(self, kv_tokens: int, kv_tokens_read: int, *, is_shared: bool) -> None:
        """Count a step."""
        words = self._words
        words[_STEPS] += 1
        words[_SHARED_STEPS] += is_shared
        words[_KV_TOKENS] += kv_tokens
        words[_KV_TOKENS_READ] += kv_tokens_read

    def figures(self) -> AttentionFigures:
        """Return what is counted; a step that is just being counted may be there in part."""
        words = self._words
        if not self.is_on:
            state = "off"
        elif words[_NUM_SHARING]:
            state = "on"
        elif words[_NUM_PLAIN]:
            state = self._memory[_STATE_START:].partition(b"\0")[0].decode(errors="ignore")
        else:
            state = _NOT_OURS
        return AttentionFigures(
            state=state,
            steps=words[_STEPS],
            shared_steps=words[_SHARED_STEPS],
            kv_tokens=words[_KV_TOKENS],
            kv_tokens_read=words[_KV_TOKENS_READ],
        )


@cache
def board_of(engine: str) -> AttentionBoard:
    """Return the board of an engine, the same for each of its processes.

    Args:
        engine: What vLLM calls this engine, in all of its processes.

    Raises:
        OSError: See ``AttentionBoard``.
    """
    path = Path(tempfile.gettempdir()) / f"parrot-attention-{os.getuid()}-{engine}"
    board = AttentionBoard(path)
    atexit.register(board.forget_name)
    return board
