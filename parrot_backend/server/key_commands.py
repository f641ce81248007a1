"""``parrot keys``: makes, lists and revokes the keys of ``parrot serve --api-keys``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

_EXIT_USAGE = 2

keys_app = typer.Typer(
    help="Make, list and revoke the keys of parrot serve --api-keys.", no_args_is_help=True
)

KeyFile = Annotated[
    Path,
    typer.Option("--api-keys", envvar="PARROT_API_KEYS", help="File of keys, as for parrot serve."),
]


@keys_app.command("add")
def add(tenant: Annotated[str, typer.Argument(help="Whom it is for.")], api_keys: KeyFile) -> None:
    """Make a key for a tenant. It is shown this once; the file keeps a digest of it."""
    from parrot_backend.server.api_keys import add_key

    with _told_errors():
        key = add_key(api_keys, tenant)
    typer.echo(key)
    typer.echo(f"A key for {tenant}; it is not shown again.", err=True)


@keys_app.command("list")
def list_keys(api_keys: KeyFile) -> None:
    """Show id, tenant and time of each key."""
    from parrot_backend.server.api_keys import read_keys

    with _told_errors():
        records = read_keys(api_keys)
    for record in records.values():
        typer.echo(f"{record.id}  {record.created}  {record.tenant}")


@keys_app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="Id of a key, or a tenant for all of its keys.")],
    api_keys: KeyFile,
) -> None:
    """Let a key, or all keys of a tenant, hold no longer. A running server follows at once."""
    from parrot_backend.server.api_keys import revoke_keys

    with _told_errors():
        gone = revoke_keys(api_keys, name)
    for record in gone:
        typer.echo(f"revoked {record.id} of {record.tenant}")


@contextmanager
def _told_errors() -> Iterator[None]:
    """End the command where something cannot be as it was asked for, and say what.

    Raises:
        typer.Exit: With the status of the command.
    """
    from parrot_backend.server.api_keys import KeyFileError

    try:
        yield
    except KeyFileError as error:
        typer.echo(f"parrot: {error}", err=True)
        raise typer.Exit(_EXIT_USAGE) from error
    except OSError as error:
        typer.echo(f"parrot: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(_EXIT_USAGE) from error
