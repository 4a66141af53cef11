"""The viewer in a real browser: Chromium of this machine, driven by Playwright, against a real server."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from athina_trace._serving.server import Server, listen
from athina_trace.viewer import sample
from athina_trace.viewer.app import create_app
from athina_trace.viewer.indexed_outbox import IndexedOutbox
from tests.viewer.chromium import CHROMIUM, FLAGS
from tests.viewer.outboxes import log, put, settle

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="there is no Chromium on this machine: install the package chromium"
)
AXE = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "demo.db"
    sample.fill(str(path))
    return path


@pytest.fixture(scope="module")
def server(outbox: Path) -> Iterator[Server]:
    with Server(create_app(IndexedOutbox(str(outbox))), listen("127.0.0.1", 0)) as running:
        yield running


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


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    yield from fresh_page(browser, server, viewport={"width": 1280, "height": 800})


@pytest.fixture
def phone(browser: Browser, server: Server) -> Iterator[Page]:
    yield from fresh_page(browser, server, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)


@pytest.fixture
def own_page(browser: Browser, path: Path) -> Iterator[Page]:
    """A viewer of an outbox that this test changes."""
    with Server(create_app(IndexedOutbox(str(path))), listen("127.0.0.1", 0)) as running:
        yield from fresh_page(browser, running, viewport={"width": 1280, "height": 800})


def open_first_session(page: Page) -> None:
    page.goto("/")
    page.locator("a.row").first.click()
    page.wait_for_url("**/session?**")


# -- every page, both widths, both themes


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_keeps_the_rules_of_accessibility_and_its_width(
    browser: Browser, server: Server, width: int, scheme: Any
) -> None:
    for page in fresh_page(browser, server, viewport={"width": width, "height": 800}, color_scheme=scheme):
        open_first_session(page)
        session = page.url
        for address in ("/", "/?customer=casa-verde&q=parcel", "/logs", "/charts?by=model", "/delivery",
                        "/log?id=sample-040-0", "/nothing", "/?q=zzz", session):  # fmt: skip
            page.goto(address)
            page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
            page.evaluate(AXE)
            found = page.evaluate("axe.run({resultTypes: ['violations']})")
            violations = [(each["id"], [node["target"] for node in each["nodes"]][:3]) for each in found["violations"]]
            assert violations == [], (address, violations)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, address


def test_nothing_moves_while_a_page_comes_in(page: Page) -> None:
    page.add_init_script(
        "window.moved = 0; new PerformanceObserver((list) => { for (const each of list.getEntries()) "
        "window.moved += each.value }).observe({type: 'layout-shift', buffered: true});"
    )
    for address in ("/", "/logs", "/charts", "/delivery"):
        page.goto(address)
        page.wait_for_timeout(150)
        assert page.evaluate("window.moved") == 0, address


def test_nothing_is_loaded_from_elsewhere(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_first_session(page)
    page.goto("/charts")
    assert asked
    assert [url for url in asked if not url.startswith(server.url)] == []


def test_dark_mode_is_a_click_away_and_stays(page: Page) -> None:
    page.goto("/")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_label("Light or dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    page.goto("/logs")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


# -- looking for something


def test_from_the_list_to_a_conversation_and_its_json(page: Page) -> None:
    open_first_session(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Hello, where is my parcel PX-48213?")
    turns = page.locator("article.turn")
    expect(turns).to_have_count(3)
    turns.nth(0).get_by_text("Tool call").click()
    expect(turns.nth(0).get_by_text('"parcel_id": "PX-48213"').first).to_be_visible()
    turns.nth(0).get_by_text("Retrieved context").click()
    expect(turns.nth(0).get_by_text("drivers come between")).to_be_visible()
    turns.nth(0).get_by_role("link", name="JSON").click()
    expect(page.locator("pre.json")).to_contain_text('"session_id": "thread_')


def test_copying_takes_the_reference_and_the_whole_json(browser: Browser, server: Server) -> None:
    for page in fresh_page(browser, server, permissions=["clipboard-read", "clipboard-write"]):
        page.goto("/log?id=sample-040-0")
        page.get_by_role("button", name="Copy JSON").click()
        expect(page.get_by_text("Copied")).to_be_visible()
        assert '"external_reference_id": "sample-040-0"' in page.evaluate("navigator.clipboard.readText()")
        page.get_by_role("button", name="Copy reference").click()
        page.wait_for_function("navigator.clipboard.readText().then((text) => text === 'sample-040-0')")


def test_search_and_filters_stand_in_the_address_and_can_be_shared(page: Page) -> None:
    page.goto("/")
    page.get_by_role("searchbox").fill("leipzig hub")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**/?q=leipzig+hub")
    expect(page.locator("a.row").first).to_contain_text("where is my parcel")
    page.get_by_text("Filters").click()
    page.get_by_label("Model").select_option("gpt-4o-mini")
    page.get_by_label("Errors only").check()
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url(re.compile(r"\?q=leipzig\+hub&model=gpt-4o-mini&errors=1$"))
    expect(page.get_by_text("Nothing fits these filters.")).to_be_visible()
    page.get_by_role("link", name="Clear all").click()
    expect(page.get_by_text("64 sessions")).to_be_visible()


def test_older_pages_are_reached_and_left(page: Page) -> None:
    page.goto("/")
    expect(page.locator("a.row")).to_have_count(50)
    page.get_by_role("link", name="Older").click()
    expect(page.locator("a.row")).to_have_count(14)
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("a.row")).to_have_count(50)


def test_charts_tell_models_apart_and_lead_to_their_logs(page: Page) -> None:
    page.goto("/charts")
    assert page.locator("svg rect").count() > 20
    page.get_by_role("link", name="By model").click()
    expect(page.locator(".legend li")).to_have_count(4)
    page.get_by_role("link", name="24h").click()
    page.wait_for_url("**by=model&period=24h")
    page.locator(".sums a").first.click()
    page.wait_for_url("**/logs?model=**")


def test_the_keyboard_is_enough(page: Page) -> None:
    page.goto("/charts")
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_url("**/")  # loaded whole: a heading may be there before the script that listens to keys
    expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("refund")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=refund")
    page.keyboard.press("j")
    expect(page.locator("a.row").nth(0)).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("a.row").nth(1)).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url("**/session?**")


def test_a_phone_shows_it_all(phone: Page) -> None:
    phone.goto("/")
    phone.locator("a.row").first.tap()
    expect(phone.locator("article.turn")).to_have_count(3)
    phone.get_by_role("link", name="Delivery").tap()
    expect(phone.get_by_role("button", name="Retry all")).to_be_visible()


# -- what changes


def test_retry_is_one_press(own_page: Page, path: Path) -> None:
    entries = [log("a", user_query=f"Question {number}") for number in range(3)]
    put(path, *entries)
    settle(path, refused=[entry.reference for entry in entries])
    own_page.goto("/delivery")
    expect(own_page.get_by_text("user_query: Expected string")).to_have_count(3)
    own_page.get_by_role("button", name=f"Retry {entries[0].reference}").click()
    expect(own_page.get_by_role("status")).to_contain_text("1 entry waits again")
    own_page.get_by_role("button", name="Retry all 2").click()
    expect(own_page.get_by_text("Nothing was refused.")).to_be_visible()


def test_new_logs_appear_by_themselves(own_page: Page, path: Path) -> None:
    own_page.goto("/")
    expect(own_page.get_by_text("Nothing here yet.")).to_be_visible()
    put(path, log("a", user_query="The first of all"))
    expect(own_page.locator("a.row")).to_have_text(["The first of all"])
    put(path, log("b", user_query="And another one"))
    expect(own_page.locator("a.row")).to_have_text(["And another one", "The first of all"])


def test_a_conversation_grows_and_keeps_open_what_was_opened(own_page: Page, path: Path) -> None:
    put(path, log("a", context="A document."))
    own_page.goto("/session?id=a")
    own_page.get_by_text("Retrieved context").click()
    own_page.evaluate("document.activeElement.blur()")
    put(path, log("a", user_query="One more thing"))
    expect(own_page.locator("article.turn")).to_have_count(2)
    expect(own_page.get_by_text("A document.")).to_be_visible()


def test_who_reads_is_not_disturbed(own_page: Page, path: Path) -> None:
    put(path, *(log(f"s{number}") for number in range(30)))
    own_page.goto("/")
    own_page.locator("a.row").nth(3).focus()
    put(path, log("new", user_query="Newest of all"))
    expect(own_page.get_by_role("button", name="New activity")).to_be_visible()
    expect(own_page.locator("a.row")).to_have_count(30)
    own_page.get_by_role("button", name="New activity").click()
    expect(own_page.locator("a.row").first).to_have_text("Newest of all")


def test_a_log_full_of_script_runs_nothing(own_page: Page, path: Path) -> None:
    nasty = "<script>window.taken = 1</script><img src=x onerror='window.taken = 1'>\"'{{ 7 * 7 }}"
    put(path, log(nasty, user_query=nasty, response=nasty, error=nasty, customer_id=nasty, context=[nasty]))
    for address in ("/", "/logs", "/delivery", "/charts?by=customer", "/log?id=1"):
        own_page.goto(address)
        own_page.wait_for_timeout(50)
        assert own_page.evaluate("window.taken") is None
    own_page.goto("/")
    own_page.locator("a.row").first.click()
    expect(own_page.get_by_text("{{ 7 * 7 }}").first).to_be_visible()
    assert own_page.evaluate("window.taken") is None


def test_a_text_that_runs_from_right_to_left_does(page: Page) -> None:
    page.goto("/?q=طردك")
    page.locator("a.row").first.click()
    direction = "(element) => getComputedStyle(element).direction"
    assert page.locator(".message.user [dir]").first.evaluate(direction) == "rtl"


def test_a_table_is_aligned_and_the_console_stays_quiet(own_page: Page, path: Path) -> None:
    put(path, log("a", response="|item|price|\n|---|--:|\n|parcel|12|"))
    own_page.goto("/session?id=a")
    aligned = own_page.get_by_role("cell", name="12").evaluate("(cell) => getComputedStyle(cell).textAlign")
    assert aligned == "right"


def test_a_message_of_a_megabyte_is_readable(own_page: Page, path: Path) -> None:
    put(path, log("a", response="word " * 200_000))
    own_page.goto("/session?id=a")
    own_page.get_by_role("link", name="All 1\u202f000\u202f000 characters").click()
    assert len(own_page.locator("body").inner_text()) > 999_000
