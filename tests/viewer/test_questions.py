"""A support lead's questions, each answered within three clicks from the first page."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from athina_trace._delivery.entry import Entry
from athina_trace._serving.server import Server, listen
from athina_trace.viewer.app import create_app
from athina_trace.viewer.filters import parse_moment
from athina_trace.viewer.indexed_outbox import IndexedOutbox
from tests.viewer.browsing import NO_BROWSER, fresh_page, quiet
from tests.viewer.outboxes import feedback, log, put

pytestmark = NO_BROWSER
LIMIT = "RateLimitError: Error code: 429 - {'error': {'message': 'Slow down.', 'type': 'tokens'}}"


def entries() -> Iterator[Entry]:
    """Two days at a help desk."""
    today, yesterday = (parse_moment(day) or 0.0 for day in ("today", "yesterday"))

    def turn(session: str, when: float, customer: str, **fields: Any) -> Entry:
        fields = {"user_query": f"A question of {customer}", **fields}
        return log(session, made=when, customer_id=customer, **fields)

    def tool(name: str, output: str) -> list[dict[str, str]]:
        return [{"name": name, "output": output}]

    noon = yesterday + 12 * 3600
    unhappy = turn("y1", noon, "acme", response_time=2000, prompt_slug="help/v1", cost=0.75, customer_user_id="ann")
    happy = turn("y2", noon + 60, "boxes", response_time=12_000, prompt_slug="help/v2", cost=0.25)
    yield from (unhappy, happy, feedback(unhappy, -1, "The wrong parcel"), feedback(happy, 1))
    now = today + 1
    inner = {"attributes": {"function": "search", "parent_reference": "slow"}}
    yield turn("t1", now, "cargo", response_time=9_500, custom_attributes=inner["attributes"])
    slow = turn(
        "t1", now, "cargo", response_time=14_000, external_reference_id="slow", language_model_id="big", cost=0.5
    )
    yield from (slow, feedback(slow, -1, "I waited for ages"))
    yield turn("t20", now - 3 * 86_400, "boxes", error=LIMIT, language_model_id="small", response_time=200)
    yield turn("t2", now, "boxes", error=LIMIT, status_code=429, language_model_id="small", response_time=300)
    for number in range(4):
        yield turn(f"t3{number}", now, "acme", tool_calls=tool("book", "Error: full" if number else "ok"))
        yield turn(f"t4{number}", now, "acme", tool_calls=tool("track", "ok" if number else "Error: no parcel"))
    yield turn("t5", now, "acme", customer_user_id="ann", user_query="And where is the other one?")


class Lead:
    """A user who clicks, and counts the clicks."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clicks = 0
        page.goto("/")

    def click(self, where: Locator, **options: Any) -> None:
        self.clicks += 1
        assert self.clicks <= 3
        where.click(**options)
        self.page.wait_for_load_state()

    def link(self, name: str) -> None:
        self.click(self.page.get_by_role("link", name=name, exact=True))

    def column(self, name: str) -> list[str]:
        """The texts of a column of the list."""
        head = self.page.locator(".list").first.locator("thead th")
        place = [re.sub(r"\W", "", text) for text in head.all_inner_texts()].index(re.sub(r"\W", "", name))
        return self.page.locator(f".list >> nth=0 >> tbody tr > :nth-child({place + 1})").all_inner_texts()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("desk") / "outbox.db"
    put(path, *entries())
    source = IndexedOutbox(str(path))
    source.refresh()
    with Server(create_app(source), listen("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture(scope="module")
def shared(browser: Browser, desk: Server) -> Iterator[Page]:
    yield from fresh_page(browser, desk, viewport={"width": 1280, "height": 900})


@pytest.fixture
def lead(shared: Page) -> Iterator[Lead]:
    for page in quiet(shared):
        yield Lead(page)


def test_which_customers_were_unhappy_yesterday(lead: Lead) -> None:
    lead.link("Disliked")
    lead.link("Yesterday")
    assert lead.column("Customer") == ["acme"]


def test_what_did_unhappy_users_write(lead: Lead) -> None:
    lead.link("Disliked")
    assert lead.page.locator(".comment").all_inner_texts() == ["“I waited for ages”", "“The wrong parcel”"]


def test_which_tool_fails_most(lead: Lead) -> None:
    lead.link("Charts")
    lead.link("By tool")
    assert lead.column("Tool") == ["book", "track"]
    assert lead.column("Errors") == ["3", "1"]
    lead.page.locator(".sums tbody a").nth(1).click()
    expect(lead.page.locator("a.row")).to_have_count(3)


def test_what_does_one_slug_cost_compared_with_the_other(lead: Lead) -> None:
    lead.link("Compare")
    cells = lead.page.locator(".beside-table tr", has_text="Cost").locator("td").all_inner_texts()
    assert [text.split()[0] for text in cells] == ["$0.7500", "$0.2500"]


def test_show_me_the_answers_over_ten_seconds_that_users_disliked(lead: Lead) -> None:
    lead.link("Logs")
    lead.link("Over 10 s")
    lead.link("Disliked")
    assert lead.column("Latency") == ["14.0 s"]
    assert lead.column("Customer") == ["cargo"]


def test_which_model_is_the_slowest(lead: Lead) -> None:
    lead.link("Charts")
    lead.link("By model")
    lead.click(lead.page.locator(".sums thead a", has_text="p95"))
    assert lead.column("Model")[0] == "big"


def test_what_failed_today_and_why(lead: Lead) -> None:
    lead.link("Logs")
    lead.link("Errors")
    lead.link("Today")
    expect(lead.page.locator(".second.bad")).to_have_text(["RateLimitError 429: Slow down."])


def test_what_is_behind_the_bar_in_the_chart_of_errors(lead: Lead) -> None:
    lead.link("Charts")
    plot = lead.page.locator('[data-chart="errors"] .u-over')
    box = plot.bounding_box()
    assert box is not None
    data = lead.page.evaluate("JSON.parse(document.getElementById('chart-data').textContent)")
    place = data["lines"][0]["errors"].index(1)
    x = box["width"] * (place + 0.5) / len(data["starts"])
    plot.hover(position={"x": x, "y": box["height"] - 10})
    expect(lead.page.locator('[data-chart="errors"] .tooltip')).to_contain_text("all1")
    lead.click(plot, position={"x": x, "y": box["height"] - 10})
    lead.page.wait_for_url(re.compile(r"/logs\?errors=1&since=.*&kind=turns"))
    expect(lead.page.locator(".second.bad")).to_have_count(1)


def test_which_step_took_longest_in_the_slowest_answer(lead: Lead) -> None:
    lead.link("Logs")
    lead.link("Latency")
    lead.click(lead.page.locator("a.row").first)
    expect(lead.page.locator(".turn.chosen summary", has_text="1 step")).to_contain_text("search 9.5 s")


def test_who_is_the_next_unhappy_user(lead: Lead) -> None:
    lead.link("Disliked")
    lead.click(lead.page.locator("a.row").first)
    lead.link("Next →")
    expect(lead.page.get_by_text("Disliked: The wrong parcel")).to_be_visible()


def test_what_else_did_this_user_ask(lead: Lead) -> None:
    lead.click(lead.page.locator("a.row", has_text="And where is the other one?"))
    lead.link("ann")
    expect(lead.page.locator("a.row")).to_have_text(["And where is the other one?", "A question of acme"])


def test_what_did_each_customer_cost_this_month(lead: Lead) -> None:
    lead.link("Charts")
    lead.link("By customer")
    lead.link("30d")
    cost = dict(zip(lead.column("Customer"), lead.column("Cost"), strict=True))
    assert [cost[name].split()[0] for name in ("acme", "boxes", "cargo")] == ["$0.7500", "$0.2500", "$0.5000"]


def test_which_customer_is_the_unhappiest(lead: Lead) -> None:
    lead.link("Charts")
    lead.link("By customer")
    lead.click(lead.page.locator(".sums thead a", has_text="Disliked"))
    assert {lead.column("Customer")[0], lead.column("Customer")[1]} == {"acme", "cargo"}
    assert lead.column("Disliked") == ["1", "1", "0"]


def test_how_many_of_our_users_are_happy(lead: Lead) -> None:
    lead.link("Charts")
    expect(lead.page.locator("#chart-feedback")).to_contain_text("▲ 1 ▼ 2, 33% liked")


def test_which_conversations_were_the_longest(lead: Lead) -> None:
    lead.click(lead.page.locator("thead a", has_text="Turns"))
    turns = [int(text) for text in lead.column("Turns")]
    assert turns == sorted(turns, reverse=True)


def test_who_else_had_this_error(lead: Lead) -> None:
    lead.click(lead.page.locator(".views").get_by_role("link", name="Errors"))
    lead.click(lead.page.locator("a.row").first)
    lead.link("All logs with RateLimitError")
    assert lead.column("Customer") == ["boxes", "boxes"]


def test_what_did_this_customer_ask_yesterday(lead: Lead) -> None:
    lead.click(lead.page.locator("a.row", has_text="A question of boxes").first)
    lead.link("boxes")
    lead.link("Yesterday")
    expect(lead.page.locator("a.row")).to_have_text(["A question of boxes"])


def test_which_answers_make_the_new_prompt_slow(lead: Lead) -> None:
    lead.link("Compare")
    lead.link("Latency, p95")
    expect(lead.page.locator(".two-columns h2").nth(1)).to_have_text("help/v2: answers, slowest first")
    expect(lead.page.locator(".two-columns section").nth(1).locator(".card .none")).to_contain_text("12.0 s")


def test_which_logs_are_not_delivered_yet(lead: Lead) -> None:
    lead.link("Logs")
    lead.click(lead.page.locator("thead a", has_text="Delivery"))
    assert set(lead.column("Delivery")) == {"waiting"}
