"""Where the server is and how patiently to talk to it: the client's only reader of the environment.

``PARROT_BASE_URL`` and ``PARROT_API_KEY`` fill in what is not given as an argument.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields

from parrot_integrations.errors import NotConfigured

_HOW_TO_CONFIGURE = (
    "No Parrot server is known. Start one with `parrot serve` and set PARROT_BASE_URL to the "
    "address it prints, or pass base_url= to the client. `parrot demo` shows an example run "
    "without any configuration."
)

#: Credentials after the scheme, which is kept; query and fragment.
_SECRETS = re.compile(r"^([a-z]+://)?[^/?#]*@|[?#].*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True, repr=False)
class ClientSettings:
    """Address, credentials and patience of a client.

    Attributes:
        base_url: ``http://`` or ``https://`` address of the server, without ``/v1``; shown without
            credentials and query.
        api_key: Sent as a bearer token; never shown.
        connect_timeout_s: Longest time to open a connection.
        read_timeout_s: Longest silence of the server. Streams are kept alive by pings every 15 s,
            so a silent one is broken.
        max_attempts: How often one request is tried before its error is raised.
        retry_timeout_s: No further attempt begins after this long.
    """

    base_url: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    max_attempts: int = 5
    retry_timeout_s: float = 45.0

    def __post_init__(self) -> None:
        """Reject an address that could never be reached."""
        if not self.base_url.startswith(("http://", "https://")):
            raise NotConfigured(
                "invalid_base_url",
                f"The base URL must begin with http:// or https://, not {self.public_url!r}.",
            )

    def __repr__(self) -> str:
        """Show all but secrets."""
        shown = {"base_url": self.public_url}
        shown |= {one.name: getattr(self, one.name) for one in fields(self) if one.repr}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    @property
    def public_url(self) -> str:
        """The address for people and telemetry: without credentials, query and fragment."""
        return without_secrets(self.base_url)

    def is_same_server(self, other: ClientSettings) -> bool:
        """Tell whether both talk to one server, in the same name."""
        return (self.base_url, self.api_key) == (other.base_url, other.api_key)


def without_secrets(url: str) -> str:
    """Return an address without credentials, query and fragment, which may hold some."""
    return _SECRETS.sub(r"\1", url)


def resolve_settings(base_url: str | None = None, api_key: str | None = None) -> ClientSettings:
    """Fill in from the environment what was not given.

    Raises:
        NotConfigured: There is no base URL, or it is not one.
    """
    base_url = base_url or os.environ.get("PARROT_BASE_URL")
    if not base_url:
        raise NotConfigured("no_base_url", _HOW_TO_CONFIGURE)
    # Other clients are given the address with the version of the interface.
    base_url = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
    return ClientSettings(base_url, api_key or os.environ.get("PARROT_API_KEY") or None)
