"""Writes what the core takes in to a file, so that the run can be studied and replayed.

A recording holds prompts, outputs and whatever else clients send: only the user who runs the server
may read it. Trouble with the file ends the recording, never the server.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from parrot_backend.core.commands import Command
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.event_codec import Json
from parrot_backend.core.events import Event
from parrot_backend.core.recording import header_of, line_of

logger = logging.getLogger(__name__)

_OWNER_ONLY = 0o600


class EventRecorder:
    """One recording.

    Args:
        path: A new file; an old one is never written over.
        config: Settings of the core.

    Raises:
        OSError: The file exists, or cannot be made.
    """

    def __init__(self, path: Path, config: CoreConfig) -> None:
        header = header_of(config)  # what cannot be written leaves no file behind
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        self._path = path
        self._file = os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass")
        self._is_open = True
        self._write(header)
        logger.warning("prompts and outputs are recorded in %s", path)

    def record(self, event: Event, now_s: float, commands: Sequence[Command]) -> None:
        """Write down an event that the core has taken in, and what was decided."""
        if not self._is_open:
            return
        try:
            self._write(line_of(event, now_s, commands))
        except (TypeError, ValueError) as exc:  # its text may hold what clients sent
            logger.error("the recording %s ends here: %s", self._path, type(exc).__name__)
            self.close()

    def close(self) -> None:
        """End the recording. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._file.close()
        except OSError as exc:
            logger.error("the end of the recording %s is lost: %s", self._path, exc)

    def _write(self, line: Json) -> None:
        text = json.dumps(line, ensure_ascii=True, separators=(",", ":"))
        try:
            self._file.write(text + "\n")
        except OSError as exc:
            logger.error("the recording %s ends here: %s", self._path, exc)
            self.close()
