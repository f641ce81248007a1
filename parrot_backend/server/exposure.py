"""Who can reach a server, and whether that is meant so."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address; of names, only ``localhost``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def exposure_problem(host: str, *, has_keys: bool, no_auth: bool) -> str | None:
    """Return why a server must not listen so, None if it may.

    Args:
        host: Where it is to listen.
        has_keys: Whether clients need keys.
        no_auth: Whether it was said that they need none.
    """
    if has_keys and no_auth:
        return "no_auth (PARROT_NO_AUTH): says that nobody needs a key, and api_keys has some"
    if has_keys or no_auth or is_loopback(host):
        return None
    return (
        f"host (PARROT_HOST): other machines reach {host}, and there are no keys; give --api-keys "
        "FILE (parrot keys add TENANT makes one), or --no-auth if everybody may use the models"
    )


def exposure_warning(host: str, *, has_keys: bool) -> str | None:
    """Return what there is to know of an address that other machines reach."""
    if is_loopback(host):
        return None
    if has_keys:
        return (
            f"WARNING: listening on {host} without TLS: keys and prompts can be read on the way "
            "unless a proxy with TLS stands in front"
        )
    return (
        f"WARNING: listening on {host} without authentication: everybody who reaches this port can "
        "use the models"
    )
