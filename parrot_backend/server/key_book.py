"""The keys that hold at this moment: those of a file, which may change while the server runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from parrot_backend.server.api_keys import KeyFileError, KeyRecord, read_keys, tenant_of_key

logger = logging.getLogger(__name__)

#: What tells one state of a file from another; who may read it is part of that.
_State = tuple[int, int, int]

#: No key is as long; what is longer is not even hashed.
_MAX_KEY_CHARS = 256


class KeyBook:
    """The keys of one file.

    Each look at a key looks whether the file has changed, which takes a system call of some
    microseconds; so a key that is revoked stops to work at once. As long as the file cannot be
    read, no key works.

    Args:
        path: The file.

    Raises:
        KeyFileError: It is not a file of keys.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: _State | None = self._look()
        self._records: Mapping[str, KeyRecord] = read_keys(path)
        if not self._records:
            logger.warning("%s has no keys yet: every request is refused", path)

    def tenant_of(self, key: str) -> str | None:
        """Return whom a key stands for, None for nobody."""
        self._follow()
        return tenant_of_key(key, self._records) if len(key) <= _MAX_KEY_CHARS else None

    def _follow(self) -> None:
        try:
            state = self._look()
            if state == self._state:
                return
            records = read_keys(self._path)
        except OSError as error:
            if self._state is not None:
                logger.error("%s: %s; no key works until it can be", self._path, error.strerror)
            # It may be read next time without a change: files were too many, say.
            self._state, self._records = None, {}
            return
        except KeyFileError as error:
            logger.error("%s; no key works until that is put right", error)
            records = {}
        else:
            logger.info("%s has changed: %d keys hold now", self._path, len(records))
        self._state, self._records = state, records

    def _look(self) -> _State:
        found = self._path.stat()
        return found.st_ino, found.st_ctime_ns, found.st_size
