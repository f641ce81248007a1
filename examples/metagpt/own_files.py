"""A folder for results: what an earlier run wrote is replaced, and nothing else is ever deleted.

A list in the folder says which files are a run's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LIST_NAME = ".written-by-compare"


class FolderTaken(Exception):  # noqa: N818 - says what happened
    """The folder holds files, and none of them is a run's."""


@contextmanager
def own_files(folder: Path) -> Iterator[None]:
    """Take a folder for the files that are written in a block.

    Raises:
        FolderTaken: Before anything is changed.
    """
    known = folder / LIST_NAME
    if not known.is_file() and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderTaken(f"{folder} holds something else: name a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    if known.is_file():
        _delete(folder, known.read_text(encoding="utf-8").splitlines())
    others = _files_in(folder)
    known.write_text("", encoding="utf-8")
    try:
        yield
    finally:
        written = sorted(_files_in(folder) - others)
        known.write_text("".join(f"{name}\n" for name in written), encoding="utf-8")


def _files_in(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    return found - {LIST_NAME}


def _delete(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.unlink(missing_ok=True)
        with suppress(OSError):  # other files are in it
            path.parent.rmdir()
