"""The viewer in a real browser: Chromium of this machine, driven by Playwright, against a real server."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from athina_trace._delivery.entry import Entry
from athina_trace._serving.server import Server, listen
from athina_trace.viewer import sample
from athina_trace.viewer.app import create_app
from athina_trace.viewer.formatting import NO_VALUE
from athina_trace.viewer.indexed_outbox import IndexedOutbox
from tests.viewer.browsing import NO_BROWSER, fresh_page, quiet
from tests.viewer.outboxes import log, put, settle

pytestmark = NO_BROWSER
AXE = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "demo.db"
    sample.fill(str(path))
    return path


@pytest.fixture(scope="module")
def server(outbox: Path) -> Iterator[Server]:
    with Server(create_app(IndexedOutbox(str(outbox))), listen("127.0.0.1", 0)) as running:
        yield running


@pytest.fixture(scope="module")
def shared(browser: Browser, server: Server) -> Iterator[Page]:
    yield from fresh_page(browser, server, viewport={"width": 1280, "height": 800})


@pytest.fixture
def page(shared: Page) -> Iterator[Page]:
    """Yield a page for all tests that change nothing, since a new one takes as long as five navigations."""
    yield from quiet(shared)
    shared.evaluate("localStorage.clear()")


@pytest.fixture
def phone(browser: Browser, server: Server) -> Iterator[Page]:
    yield from fresh_page(browser, server, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)


@pytest.fixture
def own_page(browser: Browser, path: Path) -> Iterator[Page]:
    """Yield a page of a viewer whose outbox the test may change."""
    with Server(create_app(IndexedOutbox(str(path))), listen("127.0.0.1", 0)) as running:
        yield from fresh_page(browser, running, viewport={"width": 1280, "height": 800})


def open_first_session(page: Page) -> None:
    page.goto("/")
    page.locator("a.row").first.click()
    page.wait_for_url("**/session?**")


# -- every page, at both widths, in both themes


@pytest.mark.timeout(600)  # thirteen pages are checked, which takes minutes on a busy machine
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_passes_the_accessibility_rules_and_fits_its_width(
    browser: Browser, server: Server, width: int, scheme: Any
) -> None:
    for page in fresh_page(browser, server, viewport={"width": width, "height": 800}, color_scheme=scheme):
        open_first_session(page)
        session = page.url
        open_showcase(page)
        showcase = page.url
        for address in ("/", "/?customer=casa-verde&q=parcel", "/logs", "/charts?by=model", "/charts?by=tool",
                        "/compare", "/compare?by=session", "/delivery", "/log?id=sample-040-0", "/nothing",
                        "/?q=zzz", session, showcase):  # fmt: skip
            page.goto(address)
            page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
            page.evaluate(AXE)
            found = page.evaluate("axe.run({resultTypes: ['violations']})")
            violations = [(each["id"], [node["target"] for node in each["nodes"]][:3]) for each in found["violations"]]
            assert violations == [], (address, violations)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, address


def test_no_number_is_truncated_at_any_width(browser: Browser, server: Server) -> None:
    for page in fresh_page(browser, server):
        for address in ("/", "/logs", "/charts?by=model", "/charts?by=tool", "/compare", "/delivery"):
            page.goto(address)
            # Use the widest time, since the sample's age depends on the tests that ran before.
            page.evaluate(
                "document.querySelectorAll('details').forEach((each) => { each.open = true });"
                "document.querySelectorAll('.when time').forEach((each) => { each.textContent = '48 min ago' })"
            )
            for width in (390, 700, 768, 860, 861, 1024, 1280, 1600):
                page.set_viewport_size({"width": width, "height": 800})
                cut = page.evaluate(
                    "[...document.querySelectorAll('.number, .beside-table td')]"
                    ".filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.innerText)"
                )
                assert cut == [], (address, width)


def test_the_layout_does_not_shift_while_a_page_loads(browser: Browser, server: Server) -> None:
    for page in fresh_page(browser, server, viewport={"width": 1280, "height": 800}):
        page.add_init_script(
            "window.moved = 0; new PerformanceObserver((list) => { for (const each of list.getEntries()) "
            "window.moved += each.value }).observe({type: 'layout-shift', buffered: true});"
        )
        for address in ("/", "/logs", "/charts", "/delivery"):
            page.goto(address)
            page.wait_for_timeout(150)
            # A redrawn letter may move by a part of a pixel; a shift that a reader notices is far larger.
            assert page.evaluate("window.moved") < 0.001, address


def test_nothing_is_loaded_from_elsewhere(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_first_session(page)
    page.goto("/charts")
    assert asked
    assert [url for url in asked if not url.startswith(server.url)] == []


def test_dark_mode_takes_one_click_and_is_remembered(page: Page) -> None:
    page.goto("/")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_label("Light or dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    page.goto("/logs")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


# -- searching and navigating


def test_the_list_leads_to_a_conversation_and_its_json(page: Page) -> None:
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


def test_copy_buttons_copy_the_reference_and_the_whole_json(browser: Browser, server: Server) -> None:
    for page in fresh_page(browser, server, permissions=["clipboard-read", "clipboard-write"]):
        page.goto("/log?id=sample-040-0")
        page.get_by_role("button", name="Copy JSON").click()
        expect(page.get_by_text("Copied")).to_be_visible()
        assert '"external_reference_id": "sample-040-0"' in page.evaluate("navigator.clipboard.readText()")
        page.get_by_role("button", name="Copy reference").click()
        page.wait_for_function("navigator.clipboard.readText().then((text) => text === 'sample-040-0')")


def test_a_copy_button_gets_its_label_back_however_often_it_is_pressed(browser: Browser, server: Server) -> None:
    for page in fresh_page(browser, server, permissions=["clipboard-write"]):
        page.clock.install()
        page.goto("/log?id=sample-040-0")
        button = page.locator("button[data-fetch]")
        for _ in range(2):
            button.click()
            expect(button).to_have_text("Copied")
        page.clock.run_for(5000)
        expect(button).to_have_text("Copy JSON")


def test_search_and_filters_are_in_the_url_and_can_be_shared(page: Page) -> None:
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


def test_older_pages_can_be_opened_and_left(page: Page) -> None:
    page.goto("/")
    expect(page.locator("a.row")).to_have_count(50)
    page.get_by_role("link", name="Older").click()
    expect(page.locator("a.row")).to_have_count(14)
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("a.row")).to_have_count(50)


def test_charts_distinguish_models_and_lead_to_their_logs(page: Page) -> None:
    page.goto("/charts")
    expect(page.locator(".plot canvas")).to_have_count(7)
    page.get_by_role("link", name="By model").click()
    expect(page.locator(".legend li")).to_have_count(6)
    page.get_by_role("link", name="24h").click()
    page.wait_for_url("**by=model&period=24h")
    page.locator(".sums tbody a").first.click()
    page.wait_for_url(re.compile(r"/logs\?.*model="))


def test_everything_works_with_the_keyboard(page: Page) -> None:
    page.goto("/charts")
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_url("**/")  # wait for the load: a heading may appear before the script that handles keys
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


def test_everything_is_visible_on_a_phone(phone: Page) -> None:
    phone.goto("/")
    phone.locator("a.row").first.tap()
    expect(phone.locator("article.turn")).to_have_count(3)
    phone.get_by_role("link", name="Delivery").tap()
    expect(phone.get_by_role("button", name="Retry all")).to_be_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_compared_values_are_aligned_below_their_names(page: Page, width: int) -> None:
    page.goto("/compare")
    page.set_viewport_size({"width": width, "height": 800})
    begins = page.evaluate(
        "[...document.querySelectorAll('.beside-table tr')].map((row) =>"
        " [...row.querySelectorAll('thead th:not(:first-child), td')].map((each) =>"
        " each.getBoundingClientRect().left))"
    )
    page.set_viewport_size({"width": 1280, "height": 800})
    assert len(begins) == 9
    for one, other in begins:
        assert one < other
        assert abs(one - begins[0][0]) < 20
        assert abs(other - begins[0][1]) < 20


# -- live updates


def test_retry_takes_one_click(own_page: Page, path: Path) -> None:
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


def test_a_growing_conversation_keeps_its_opened_parts_open(own_page: Page, path: Path) -> None:
    put(path, log("a", context="A document."))
    own_page.goto("/session?id=a")
    own_page.get_by_text("Retrieved context").click()
    own_page.evaluate("document.activeElement.blur()")
    put(path, log("a", user_query="One more thing"))
    expect(own_page.locator("article.turn")).to_have_count(2)
    expect(own_page.get_by_text("A document.")).to_be_visible()


def test_new_logs_do_not_disturb_a_focused_list(own_page: Page, path: Path) -> None:
    put(path, *(log(f"s{number}") for number in range(30)))
    own_page.goto("/")
    own_page.locator("a.row").nth(3).focus()
    put(path, log("new", user_query="Newest of all"))
    expect(own_page.get_by_role("button", name="New activity")).to_be_visible()
    expect(own_page.locator("a.row")).to_have_count(30)
    own_page.get_by_role("button", name="New activity").click()
    expect(own_page.locator("a.row").first).to_have_text("Newest of all")


def test_scripts_in_a_log_are_not_run(own_page: Page, path: Path) -> None:
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


def test_right_to_left_text_is_shown_right_to_left(page: Page) -> None:
    page.goto("/?q=طردك")
    page.locator("a.row").first.click()
    direction = "(element) => getComputedStyle(element).direction"
    assert page.locator(".message.user [dir]").first.evaluate(direction) == "rtl"


def test_a_markdown_table_is_aligned_without_console_messages(own_page: Page, path: Path) -> None:
    put(path, log("a", response="|item|price|\n|---|--:|\n|parcel|12|"))
    own_page.goto("/session?id=a")
    aligned = own_page.get_by_role("cell", name="12").evaluate("(cell) => getComputedStyle(cell).textAlign")
    assert aligned == "right"


def test_a_message_of_one_megabyte_is_readable(own_page: Page, path: Path) -> None:
    put(path, log("a", response="word " * 200_000))
    own_page.goto("/session?id=a")
    own_page.get_by_role("link", name="All 1\u202f000\u202f000 characters").click()
    assert len(own_page.locator("body").inner_text()) > 999_000


# -- reading


SHOWCASE = "Hi! The courier left my parcel"


def open_showcase(page: Page) -> None:
    page.goto("/")
    page.locator("a.row", has_text=SHOWCASE).click()
    page.wait_for_url("**/session?**")


def test_a_conversation_of_fourteen_turns_shows_everything(page: Page) -> None:
    open_showcase(page)
    turns = page.locator("article.turn")
    expect(turns).to_have_count(14)
    picture = turns.nth(1).locator("img")
    picture.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("naturalWidth", 480)
    expect(turns.nth(2).locator(".fold.failed summary")).to_contain_text("No courier is free before tomorrow noon.")
    steps = turns.nth(0).locator(".steps")
    expect(steps.locator(".step").first).not_to_be_visible()
    steps.locator("summary").click()
    expect(steps.locator(".tree .tree .name")).to_have_text(["embeddings.create"])
    expect(turns.nth(5).locator(".failed")).to_contain_text("RateLimitError 429: Rate limit reached")
    expect(turns.nth(8).locator("figure.code .k").first).to_have_text("def")
    assert turns.nth(7).locator(".message.user [dir]").evaluate("(one) => getComputedStyle(one).direction") == "rtl"
    heights = turns.locator(".meta").evaluate_all("(all) => all.map((each) => each.clientHeight)")
    assert max(heights) <= 32  # one line


def test_code_is_copied_without_highlighting(browser: Browser, server: Server) -> None:
    for page in fresh_page(browser, server, permissions=["clipboard-read", "clipboard-write"]):
        open_showcase(page)
        page.locator("figure.code button").click()
        expect(page.get_by_text("Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("import hashlib, hmac\n\ndef is_from_us(")


def test_a_long_answer_can_be_unfolded(own_page: Page, path: Path) -> None:
    put(path, log("a", response="A paragraph of some length. " * 20 + "\n\n" + "word " * 1500 + "needle"))
    own_page.goto("/session?id=a")
    answer = own_page.locator(".message.assistant .prose")
    assert answer.evaluate("(one) => one.clientHeight") <= 460
    own_page.get_by_role("button", name="Show all").click()
    assert answer.evaluate("(one) => one.clientHeight") > 460
    expect(own_page.get_by_role("button", name="Show all")).not_to_be_visible()
    own_page.goto("/session?id=a&q=needle")
    expect(own_page.get_by_text("needle", exact=True)).to_be_visible()
    assert answer.evaluate("(one) => one.clientHeight") > 460


def test_next_and_previous_have_keyboard_shortcuts(page: Page) -> None:
    page.goto("/?feedback=disliked")
    first = page.locator("a.row").nth(0).inner_text()
    page.locator("a.row").first.click()
    page.wait_for_url("**/session?**")
    page.keyboard.press("n")
    expect(page.get_by_role("heading", level=1)).not_to_have_text(first)
    page.wait_for_load_state()  # keys are handled once the page's script has run
    page.keyboard.press("p")
    expect(page.get_by_role("heading", level=1)).to_have_text(first)


def test_lists_are_sorted_by_clicking_a_column(page: Page) -> None:
    page.goto("/logs")
    for order in (True, False):
        page.locator("thead").get_by_role("link", name="Tokens").click()
        page.wait_for_url(re.compile(f"sort={'' if order else '-'}tokens"))
        texts = page.locator('[data-name="tokens"]').all_inner_texts()
        numbers = [int(text.replace("\u202f", "")) for text in texts if text != NO_VALUE]
        assert numbers == sorted(numbers, reverse=order)
        expect(page.locator("th[aria-sort]")).to_have_attribute("aria-sort", "descending" if order else "ascending")


def test_charts_are_redrawn_when_the_theme_changes(page: Page) -> None:
    page.goto("/charts?by=model")
    colours = "[...document.querySelectorAll('.plot canvas')].map((each) => each.toDataURL())"
    light = page.evaluate(colours)
    page.get_by_label("Light or dark").click()
    expect(page.locator(".plot canvas")).to_have_count(7)
    assert page.evaluate(colours) != light


def test_every_page_works_without_scripts(browser: Browser, server: Server) -> None:
    for page in fresh_page(browser, server, java_script_enabled=False):
        open_showcase(page)
        page.locator(".steps summary").first.click()
        expect(page.locator(".step").first).to_be_visible()
        page.get_by_role("link", name="Next →").click()
        page.goto("/charts?by=model")
        page.get_by_text("The same by time").click()
        page.locator(".by-time tbody a").first.click()
        expect(page.locator("a.row").first).to_be_visible()
        page.goto("/compare")
        page.get_by_label("The other").select_option(index=2)
        page.get_by_role("button", name="Compare").click()
        expect(page.locator(".beside-table")).to_be_visible()


HOSTILE = (
    "<img src=x onerror='window.taken = 1'><script>window.taken = 1</script></title></script>"
    "<style>*{display:none}</style>\"' onmouseover=window.taken=1 {{ 7 * 7 }} javascript:window.taken=1 "
    "../../%00?&#/\u202e\x00\x1b[31m\x07"
)


def hostile_log(number: int) -> Entry:
    """Make a log in which every field, and every name that a program chooses, is an attack."""
    names = (
        "session_id", "customer_id", "customer_user_id", "user_query", "response", "expected_response", "error",
        "prompt_slug", "environment", "language_model_id", "user_feedback_comment",
    )  # fmt: skip
    parts = [
        {"type": "text", "text": HOSTILE},
        {"type": "image_url", "image_url": {"url": "javascript:window.taken=1"}},
        {"type": "file", "filename": HOSTILE, "file_url": f"https://a.example/{HOSTILE}"},
    ]
    texts: dict[str, Any] = dict.fromkeys(names, HOSTILE) | {"response": f"[a](javascript:window.taken=1) {HOSTILE}"}
    return log(
        **texts,
        external_reference_id=f"{HOSTILE}{number}",
        context=[HOSTILE, {HOSTILE: HOSTILE}],
        tool_calls=[{"function": {"name": HOSTILE, "arguments": HOSTILE}, "output": f"Error: {HOSTILE}"}],
        tools=[{"function": {"name": HOSTILE}}],
        prompt=[{"role": HOSTILE, "content": HOSTILE}, {"role": "user", "content": parts}],
        custom_attributes={HOSTILE: HOSTILE},
        user_feedback=-1,
    )


def test_no_field_or_name_in_a_log_is_executed(own_page: Page, path: Path) -> None:
    put(path, hostile_log(1), hostile_log(2))
    own_page.goto("/")
    addresses = ["/", "/logs", "/delivery", "/compare?by=session", "/log?id=1", "/message?id=1&field=response"]
    addresses += [f"/charts?by={name}" for name in ("customer", "slug", "model", "environment", "tool")]
    addresses += [f"/logs?{urlencode({'q': HOSTILE, 'customer': HOSTILE, 'attribute': HOSTILE})}"]
    own_page.locator("a.row").first.click()
    own_page.wait_for_url("**/session?**")
    expect(own_page.locator("article.turn")).to_have_count(2)
    for address in (own_page.url, *addresses):
        own_page.goto(address)
        own_page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        assert own_page.evaluate("window.taken") is None, address
        assert own_page.evaluate("getComputedStyle(document.body).display") == "block", address
        assert own_page.evaluate("document.documentElement.scrollWidth") <= 1280, address
        unsafe = (
            "[...document.querySelectorAll('[href], [src]')].filter((each) => !/^https?:/.test(each.href || each.src))"
        )
        assert own_page.evaluate(f"{unsafe}.length") == 0, address
