"""Live progress: a spinner or a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Show that something of unknown length goes on, and at its end how long it took."""
    begin_s = perf_counter()
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task(f"{what} ...", total=None)
            yield
    else:
        console.print(f"{what} ...", highlight=False)
        yield
    console.print(f"{what}: {perf_counter() - begin_s:.1f} s", highlight=False)


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Yield what to call after each of ``total`` steps, with words about the step."""
    if not console.is_terminal:
        console.print(f"{what}, {total} runs:", highlight=False)
        yield lambda done: console.print(f"  {done}", highlight=False)
        return
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, advance=1, description=done)
