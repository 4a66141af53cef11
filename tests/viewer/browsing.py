"""A page in Chromium that must write nothing to its console."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect

from athina_trace._serving.server import Server
from tests.viewer.chromium import CHROMIUM

NO_BROWSER = pytest.mark.skipif(
    not CHROMIUM, reason="there is no Chromium on this machine: install the package chromium"
)

PATIENCE = 60_000
"""Milliseconds for what a page is to show, however busy the machine is."""
expect.set_options(timeout=PATIENCE)


def fresh_page(browser: Browser, server: Server, **options: Any) -> Iterator[Page]:
    """Open a page in its own context, like that of a new browser."""
    context = browser.new_context(base_url=server.url, **options)
    context.set_default_timeout(PATIENCE)
    yield from quiet(context.new_page())
    context.close()


def quiet(page: Page) -> Iterator[Page]:
    """Yield the page, and require that its console has no messages but those of a 404."""
    errors: list[str] = []

    def note_error(error: Error) -> None:
        errors.append(str(error))

    def note_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            errors.append(message.text)

    page.on("pageerror", note_error)
    page.on("console", note_message)
    yield page
    page.remove_listener("pageerror", note_error)
    page.remove_listener("console", note_message)
    assert [text for text in errors if "404" not in text] == []
