"""Bringing the environments up to date, one after the other, and saying what went wrong."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from scripts.environments.explain import SetupError
from scripts.environments.install import install
from scripts.environments.record import is_ready, only_one_setup, read_record
from scripts.environments.table import Environment, environments


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the environments up to date and return the exit status."""
    try:
        known = environments()
        options = parse_arguments(arguments, known)
        with terminated_as_interrupted():
            for environment in known:
                if is_wanted(environment, options.only or ()):
                    bring_up_to_date(environment, options.torch_index_url)
    except SetupError as error:
        print(f"\nset-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next `make setup` starts afresh", file=sys.stderr)
        return 130
    return 0


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a block as an interrupt does, so that what it started ends with it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_wanted(environment: Environment, only: Sequence[str]) -> bool:
    """Tell whether an environment is to be made: one on demand only if it is named, or there."""
    if only:
        return environment.name in only
    return not environment.is_on_demand or environment.interpreter.exists()


def bring_up_to_date(environment: Environment, torch_index_url: str) -> None:
    """Install into an environment, unless it is complete."""
    if is_ready(read_record(environment), environment):
        return
    with only_one_setup():
        if not is_ready(read_record(environment), environment):
            install(environment, torch_index_url)


def parse_arguments(
    arguments: Sequence[str] | None, known: Sequence[Environment]
) -> argparse.Namespace:
    """Read the flags; the Makefile passes its variable through the environment."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.environments",
        description="Create environments and install Parrot into them.",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[environment.name for environment in known],
        help=f"bring only these up to date: {', '.join(e.name for e in known)}",
    )
    parser.add_argument(
        "--torch-index-url",
        default=os.environ.get("TORCH_INDEX_URL", ""),
        help="index of PyTorch's CPU wheels, used only if torch is not found without it",
    )
    return parser.parse_args(arguments)
