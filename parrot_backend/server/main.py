"""``parrot serve``: settings, logging, engines and the server, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import typer

from parrot_backend.server.config import ConfigError, load_settings
from parrot_backend.server.engine_factory import create_slots
from parrot_backend.server.observability import configure_logging
from parrot_backend.server.process import serve

EXIT_OK = 0
EXIT_CANNOT_LISTEN = 1
EXIT_BAD_SETTINGS = 2

logger = logging.getLogger(__name__)


def run_server(flags: Mapping[str, Any]) -> int:
    """Serve until a signal comes; return the exit status of the process.

    Args:
        flags: Settings by name; None was not given.
    """
    try:
        settings = load_settings(flags)
        slots = create_slots(settings.engines)
    except ConfigError as exc:
        for problem in exc.problems:
            typer.echo(f"parrot: bad setting: {problem}", err=True)
        return EXIT_BAD_SETTINGS
    configure_logging(settings.server.log_level)
    try:
        serve(settings.server, slots, typer.echo)
    except OSError as exc:
        if settings.server.record is not None and exc.filename == str(settings.server.record):
            typer.echo(f"parrot: cannot record to {exc.filename}: {exc.strerror}", err=True)
            return EXIT_BAD_SETTINGS
        address = f"{settings.server.host}:{settings.server.port}"
        typer.echo(f"parrot: cannot listen on {address}: {exc.strerror}", err=True)
        return EXIT_CANNOT_LISTEN
    return EXIT_OK
