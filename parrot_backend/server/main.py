"""``parrot serve``: settings, logging, engines and the server, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import typer

from parrot_backend.server.api_keys import KeyFileError
from parrot_backend.server.config import ConfigError, ServerSettings, load_settings
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
        configure_logging(settings.server.log_level)
        serve(settings.server, slots, typer.echo)
    except ConfigError as exc:
        for problem in exc.problems:
            typer.echo(f"parrot: bad setting: {problem}", err=True)
        return EXIT_BAD_SETTINGS
    except KeyFileError as exc:
        typer.echo(f"parrot: {exc}", err=True)
        return EXIT_BAD_SETTINGS
    except OSError as exc:
        return _tell(exc, settings.server)
    return EXIT_OK


def _tell(exc: OSError, settings: ServerSettings) -> int:
    """Tell why a server could not begin, and return the exit status."""
    for path, what in ((settings.record, "record to"), (settings.api_keys, "read keys from")):
        if path is not None and exc.filename == str(path):
            typer.echo(f"parrot: cannot {what} {exc.filename}: {exc.strerror}", err=True)
            return EXIT_BAD_SETTINGS
    typer.echo(
        f"parrot: cannot listen on {settings.host}:{settings.port}: {exc.strerror}", err=True
    )
    return EXIT_CANNOT_LISTEN
