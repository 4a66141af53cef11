"""Which certificates are trusted: those that httpx would trust."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache

import certifi  # comes with httpx


def context() -> ssl.SSLContext:
    """Give the context for connections: certifi's certificates, or what SSL_CERT_FILE or SSL_CERT_DIR names."""
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=2)
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    # Once: it takes tens of milliseconds and a megabyte.
    return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder or None)
