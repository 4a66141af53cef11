"""Access rules about hosts, sites and secrets that all servers here share.

Any website that its user visits can reach a server on loopback: through a name that resolves to 127.0.0.1 (DNS
rebinding), or with a form that posts to it.
"""

from __future__ import annotations

import ipaddress
import secrets
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope


@lru_cache(maxsize=256)
def is_own_host(host: str, names: frozenset[str]) -> bool:
    """Return whether a request's `Host` is a numeric address or one of `names`."""
    # The owner of a name can make it resolve to this machine; a numeric address cannot be abused like this.
    if not 0 < len(host) <= 255 or set(host) & set("/\\@?# \t"):  # noqa: PLR2004 - the longest name in the DNS
        return False
    try:
        name = urlsplit(f"//{host}").hostname
        return name is not None and (name in names or bool(ipaddress.ip_address(name)))
    except ValueError:
        return False


def is_cross_site(scope: Scope) -> bool:
    """Return whether a browser says that a request comes from a page of another site."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
    scheme, _, host = origin.partition("://")
    return scheme not in ("http", "https") or host != headers.get("host", "")


def same(given: str, secret: str) -> bool:
    """Compare any text with a secret, in a time that does not depend on where they differ."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), secret.encode())
