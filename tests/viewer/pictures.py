"""The README's pictures of the viewer, made from the sample: `python -m tests.viewer.pictures`."""

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from athina_trace._serving.server import Server, listen
from athina_trace.viewer import sample
from athina_trace.viewer.app import create_app
from athina_trace.viewer.indexed_outbox import IndexedOutbox
from tests.viewer.chromium import CHROMIUM, FLAGS

FOLDER = Path(__file__).parents[2] / "examples" / "pictures"
SIZE = {"width": 1080, "height": 800}


def main() -> None:
    """Write `conversation.png` and `charts.png`."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/demo.db"
        sample.fill(path)
        with Server(create_app(IndexedOutbox(path)), listen("127.0.0.1", 0)) as server:
            _take(server.url)


def _take(url: str) -> None:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:
        page = browser.new_page(base_url=url, viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
        page.goto("/")
        page.locator("a.row").first.click()
        page.wait_for_url("**/session?**")
        page.get_by_text("Tool call").first.click()
        page.screenshot(path=FOLDER / "conversation.png")
        page = browser.new_page(base_url=url, viewport=SIZE, color_scheme="dark")  # type: ignore[arg-type]
        page.goto("/charts?by=model")
        page.screenshot(path=FOLDER / "charts.png")


if __name__ == "__main__":
    main()
