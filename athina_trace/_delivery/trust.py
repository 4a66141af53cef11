"""The trusted certificates: the system's, as elsewhere in the standard library."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path


def context() -> ssl.SSLContext:
    """Return the TLS context, with the certificates of SSL_CERT_FILE or SSL_CERT_DIR, or else the system's.

    If the system has none (a container without ca-certificates, python.org's installer for macOS), those of httpx are
    used.
    """
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


def needs_httpx() -> bool:
    """Return whether `context` will import httpx, which takes long."""
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return False
    return not _system_has_certificates()


@lru_cache(maxsize=2)
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    # Cached, since it takes tens of milliseconds and a megabyte.
    if file or folder:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    if _system_has_certificates():
        return ssl.create_default_context()
    import httpx  # noqa: PLC0415 - takes longer to import than everything else that a first log needs

    return httpx.create_ssl_context(trust_env=False)


def _system_has_certificates() -> bool:
    if hasattr(ssl, "enum_certificates"):
        return True  # Windows does not keep them in files
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or (paths.capath is not None and any(Path(paths.capath).iterdir()))
