"""A page in Chromium that must say nothing on its console."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from athina_trace._serving.server import Server
from tests.viewer.chromium import CHROMIUM

NO_BROWSER = pytest.mark.skipif(
    not CHROMIUM, reason="there is no Chromium on this machine: install the package chromium"
)


def fresh_page(browser: Browser, server: Server, **options: Any) -> Iterator[Page]:
    """A page in a context of its own, which must say nothing on its console but what a 404 says."""
    context = browser.new_context(base_url=server.url, **options)
    context.set_default_timeout(10_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    yield page
    context.close()
    assert [text for text in errors if "404" not in text] == []
