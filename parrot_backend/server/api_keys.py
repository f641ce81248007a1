"""API keys and the file that knows them: who a key stands for, and a digest of each, no key.

A key is ``parrot_<id>_<secret>``. The id is public: it finds the digest and names the key in lists.
The secret has 256 random bits, so nobody can try them out, and one round of SHA-256 hides it as
well as a slow hash would; slow ones are for passwords that people choose.

The file is JSON. Changes replace it as a whole, one at a time, so a reader never sees half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_FORMAT = "parrot-keys"
_VERSION = 1
_PREFIX = "parrot"
_ID_BYTES = 6
_SECRET_BYTES = 32

_ID = re.compile(r"[0-9a-f]{12}")
#: No tenant has a name that could be the id of a key: ``revoke_keys`` takes either.
_TENANT = re.compile(r"(?![0-9a-f]{12}$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

#: Compared with where no key has the given id, so that this takes as long as a wrong secret.
_NO_DIGEST = "0" * 64


class KeyFileError(ValueError):
    """A file of keys cannot be used, or changed as asked; the text says why."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key.

    Attributes:
        id: Its public part.
        tenant: Whom it stands for; a tenant may have several keys.
        sha256: Digest of the whole key, in hexadecimal.
        created: When it was made, in UTC.
    """

    id: str
    tenant: str
    sha256: str
    created: str


def digest_of(key: str) -> str:
    """Return what is kept of a key in place of it."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def tenant_of_key(key: str, records: Mapping[str, KeyRecord]) -> str | None:
    """Return whom a key stands for, None for nobody; the time tells nothing of digests.

    Args:
        key: What a client sent.
        records: All keys by their id.
    """
    prefix, _, rest = key.partition("_")
    record = records.get(rest.partition("_")[0]) if prefix == _PREFIX else None
    known = _NO_DIGEST if record is None else record.sha256
    is_equal = hmac.compare_digest(digest_of(key), known)
    return record.tenant if record is not None and is_equal else None


def read_keys(path: Path) -> dict[str, KeyRecord]:
    """Return the keys of a file by their id.

    Raises:
        KeyFileError: It is not a file of keys.
        OSError: It cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise KeyFileError(f"{path} is not a file of keys: no JSON") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise KeyFileError(f"{path} is not a file of keys")
    if content.get("version") != _VERSION:
        raise KeyFileError(f"{path} has version {content.get('version')!r}, not {_VERSION}")
    listed = content.get("keys")
    if not isinstance(listed, list):
        raise KeyFileError(f"{path} has no list of keys")
    records = [_record(path, number, one) for number, one in enumerate(listed)]
    found = {record.id: record for record in records}
    if len(found) < len(records):
        raise KeyFileError(f"{path} has two keys with one id")
    return found


def add_key(path: Path, tenant: str) -> str:
    """Make a key for a tenant, note its digest in a file, and return the key.

    Args:
        path: The file; it is made, for its user alone, if it is not there.
        tenant: Letters, digits, dots, dashes and underscores, at most 64.

    Raises:
        KeyFileError: The name cannot be, or it is not a file of keys.
        OSError: The file cannot be read or written.
    """
    if not _TENANT.fullmatch(tenant):
        raise KeyFileError(
            "a tenant's name has 1 to 64 letters, digits, dots, dashes and underscores, and "
            "begins with a letter or digit; it is not 12 hexadecimal digits, as ids of keys are"
        )
    with _alone_with(path) as real:
        records = read_keys(real) if real.exists() else {}
        key_id = secrets.token_hex(_ID_BYTES)
        key = f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        created = datetime.now(UTC).isoformat(timespec="seconds")
        records[key_id] = KeyRecord(key_id, tenant, digest_of(key), created)
        _write(real, records)
    return key


def revoke_keys(path: Path, name: str) -> list[KeyRecord]:
    """Take a key out of a file, by its id, or all keys of a tenant; return them.

    Raises:
        KeyFileError: There is none, or it is not a file of keys.
        OSError: The file cannot be read or written.
    """
    with _alone_with(path) as real:
        records = read_keys(real)
        gone = [one for one in records.values() if name in (one.id, one.tenant)]
        if not gone:
            raise KeyFileError(f"{path} has no key with this id, and no tenant of this name")
        _write(real, {i: one for i, one in records.items() if one not in gone})
    return gone


def _record(path: Path, number: int, given: Any) -> KeyRecord:
    names = {field.name for field in fields(KeyRecord)}
    is_whole = (
        isinstance(given, dict)
        and given.keys() == names
        and all(isinstance(value, str) for value in given.values())
        and _ID.fullmatch(given["id"])
        and _TENANT.fullmatch(given["tenant"])
        and _DIGEST.fullmatch(given["sha256"])
    )
    if not is_whole:
        raise KeyFileError(f"{path}: key {number + 1} of the list is not whole")
    return KeyRecord(**given)


@contextlib.contextmanager
def _alone_with(path: Path) -> Iterator[Path]:
    """Keep other changes of a file away; yield where it really is."""
    real = path.resolve()
    # The file itself is replaced with each change, so the lock is on its folder.
    folder = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield real
    finally:
        os.close(folder)


def _write(path: Path, records: Mapping[str, KeyRecord]) -> None:
    """Replace a file; who may read it stays as it is, and of a new one only its user may."""
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "keys": [asdict(record) for record in records.values()],
    }
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            if path.exists():
                before = path.stat()
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
