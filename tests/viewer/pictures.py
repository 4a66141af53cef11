"""The README's pictures of the viewer, made from the sample: `python -m tests.viewer.pictures`."""

import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from athina_trace._serving.server import Server, listen
from athina_trace.viewer import sample
from athina_trace.viewer.app import create_app
from athina_trace.viewer.indexed_outbox import IndexedOutbox
from tests.viewer.chromium import CHROMIUM, FLAGS

FOLDER = Path(__file__).parents[2] / "examples" / "pictures"
DESKTOP = {"width": 1080, "height": 800}
TALL = {"width": 1080, "height": 1180}
PHONE = {"width": 390, "height": 800}
SHOWN = "Hi! The courier left my parcel"


def main() -> None:
    """Write the pictures: a conversation on both screens, light and dark, and the pages for triage."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/demo.db"
        sample.fill(path)
        source = IndexedOutbox(path)
        source.refresh()
        with Server(create_app(source), listen("127.0.0.1", 0)) as server:
            _take(server.url)


def _take(url: str) -> None:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:

        def page_of(size: dict[str, int], scheme: Any, scale: float = 1) -> Page:
            return browser.new_page(
                base_url=url,
                viewport={"width": size["width"], "height": size["height"]},
                color_scheme=scheme,
                device_scale_factor=scale,
                is_mobile=size is PHONE,
            )

        for name, size, scheme in (
            ("conversation", TALL, "light"),
            ("conversation-dark", TALL, "dark"),
            ("phone", PHONE, "light"),
            ("phone-dark", PHONE, "dark"),
        ):
            page = page_of(size, scheme, 2 if size is PHONE else 1)
            page.goto("/")
            page.locator("a.row", has_text=SHOWN).click()
            page.wait_for_url("**/session?**")
            turn = page.locator(".turn").nth(1 if size is PHONE else 0)
            turn.locator(".steps summary").click()
            if size is PHONE:
                turn.evaluate("(turn) => scrollTo(0, turn.offsetTop - 24)")
            page.wait_for_function("[...document.images].every((image) => image.complete)")
            page.screenshot(path=FOLDER / f"{name}.png")
        for name, address, scheme in (("charts", "/charts?by=model", "dark"), ("logs", "/logs?q=parcel", "light")):
            page = page_of(DESKTOP, scheme)
            page.goto(address)
            page.screenshot(path=FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
