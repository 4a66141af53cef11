"""The pages over real HTTP: what they show and refuse, and that no content of a log is ever executed."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._serving.server import Server, listen
from athina_trace.viewer.app import create_app
from athina_trace.viewer.indexed_outbox import IndexedOutbox
from tests.viewer.outboxes import feedback, log, opened, put, settle

PAGES = (
    "/",
    "/logs",
    "/charts",
    "/delivery",
    "/charts?by=customer&period=24h",
    "/?q=parcel&errors=1",
    "/logs?state=refused",
)


def secret_of(client: httpx.Client) -> str:
    found = re.search(r'name="secret" value="([^"]+)"', client.get("/delivery").text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_complete_and_has_the_security_headers(client: httpx.Client, page: str) -> None:
    answer = client.get(page)
    assert answer.status_code == 200
    assert answer.text.rstrip().endswith("</html>")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert " style=" not in answer.text
    assert not re.search(r"\son\w+=", answer.text)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', answer.text)


def test_a_conversation_is_shown_in_order(client: httpx.Client) -> None:
    page = client.get("/session", params={"id": first_session(client)}).text
    text = unescape(re.sub(r"<[^>]+>", " ", page))
    for part in (
        "Hello, where is my parcel PX-48213?",
        "track_parcel",
        '"place": "the Leipzig hub"',
        "Retrieved context",
        "You are the support assistant of a parcel company",
        "Expected",
        "Liked: Quick and clear, thanks!",
        "gpt-4o-mini",
        "disney-usa-2314832",
        "Copy reference",
    ):
        assert part in " ".join(text.split()), part
    assert "<strong>PX-48213</strong>" in page
    assert page.index("Hello, where") < page.index("What if I do not") < page.index("Can a neighbour")


def first_session(client: httpx.Client) -> str:
    found = re.search(r'href="/session\?id=([^"&]+)', client.get("/").text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("page", ["/nothing", "/log?id=nothing", "/session?id=nothing", "/log", "/static/nothing.css"])
def test_missing_objects_have_a_404_page(client: httpx.Client, page: str) -> None:
    answer = client.get(page)
    assert answer.status_code == 404
    assert "Not here" in answer.text


@pytest.mark.parametrize("name", ["before", "after", "again"])
@pytest.mark.parametrize("value", ["x", "-1", "9" * 40, "\u0661", "1e5", ""])
def test_invalid_numbers_in_a_url_are_no_error(client: httpx.Client, name: str, value: str) -> None:
    for page in ("/", "/logs", "/delivery", "/session"):
        answer = client.get(page, params={name: value, "id": "nothing"})
        assert answer.status_code in (200, 404)


NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{ 1337 * 1337 }}{% include '/etc/passwd' %}${1337*1337}",
    '"><svg onload=alert(1)>',
    "' OR 1=1 --",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png) <b>bold</b>",
    "\x00\x1b[31m\u202egnp.exe",
    "javascript:alert(1)",
    "</textarea></pre></script>",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_nothing_in_a_log_is_executed(path: Path, shown: httpx.Client, nasty: str) -> None:
    fields: dict[str, Any] = dict.fromkeys(
        (
            "user_query",
            "response",
            "expected_response",
            "customer_id",
            "customer_user_id",
            "environment",
            "prompt_slug",
            "language_model_id",
            "error",
            "user_feedback_comment",
        ),
        nasty,
    )
    put(
        path,
        log(
            nasty,
            external_reference_id=nasty,
            context=[nasty, {nasty: nasty}],
            tool_calls=[{"name": nasty, "arguments": nasty, "output": {nasty: nasty}}],
            prompt=[{"role": "system", "content": nasty}, {"role": nasty, "content": nasty}],
            custom_attributes={nasty: nasty},
            user_feedback=1,
            **fields,
        ),
    )
    pages = [shown.get(page) for page in (*PAGES, "/charts?by=model", "/?customer=x")]
    stored = nasty.replace("\0", "\ufffd")
    pages += [shown.get(page, params={"id": stored}) for page in ("/session", "/log")]
    pages += [shown.get("/", params=dict.fromkeys(("q", "customer", "slug", "state", "since", "session"), nasty))]
    for page in pages:
        assert page.status_code == 200
        for danger in (
            "<script>alert",
            "<img src=x",
            '<img src="http',
            "<svg onload",
            "onerror=alert(1)>",
            'href="javascript',
            "<b>bold",
        ):
            assert danger not in page.text, danger
        assert "1787569" not in page.text


def test_a_log_is_available_as_json_and_as_sent(path: Path, shown: httpx.Client) -> None:
    entry = log("a", response="ü" * 10)
    put(path, entry)
    answer = shown.get("/log.json", params={"id": entry.reference})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(entry.body)
    assert shown.get("/log.json", params={"id": "x"}).status_code == 404


def test_a_huge_message_is_truncated_with_a_link_to_the_rest(path: Path, shown: httpx.Client) -> None:
    entry = log("a", response="word " * 200_000)
    put(path, entry)
    page = shown.get("/session", params={"id": "a"})
    assert len(page.text) < 60_000
    link = re.search(r'href="(/text\?[^"]+)"', page.text)
    assert link is not None
    whole = shown.get(unescape(link[1]))
    assert whole.text == "word " * 200_000
    assert whole.headers["content-type"].startswith("text/plain")
    assert len(shown.get("/log", params={"id": entry.reference}).text) < 300_000


def test_a_body_that_is_not_a_log_does_no_harm(path: Path, shown: httpx.Client) -> None:
    odd = [
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"prompt": 5, "tool_calls": "x", "context": 3, "tools": [1, {"function": 2}]}',
    ]
    put(path, *(log(f"s{place}")._replace(body=body) for place, body in enumerate(odd)))
    for page in PAGES:
        assert shown.get(page).status_code == 200
    for number in range(1, 6):
        assert shown.get("/log", params={"id": number}).status_code == 200


@pytest.mark.parametrize("text", ["a\x00b", "\x00", '"\x00"', "%ff", "\U0001f600" * 300])
def test_any_text_can_be_searched_for(client: httpx.Client, text: str) -> None:
    for page in ("/", "/logs", "/session", "/log", "/text", "/log.json", "/charts"):
        names = ("q", "customer", "state", "since", "session", "id", "field", "by")
        assert client.get(page, params=dict.fromkeys(names, text[:30])).status_code in (200, 404)
        assert client.get(f"{page}?q={text}&id={text}".replace("\x00", "%00")).status_code in (200, 404, 414)


DEEP = ["[" * 100_000, '{"a":' * 50_000, "[" + "9" * 6000 + "]", "[" * 150 + "]" * 150]


@pytest.mark.parametrize("deep", DEEP, ids=["lists", "objects", "integer", "lists that end"])
def test_a_page_survives_any_nesting(path: Path, shown: httpx.Client, deep: str) -> None:
    put(
        path,
        log(
            "a",
            response=deep,
            context=[deep, {"text": deep}],
            expected_response=deep,
            tool_calls=[{"function": {"name": "f", "arguments": deep}, "output": deep}],
            custom_attributes={"a": deep, "b": {"c": deep}},
            prompt=[{"role": "user", "content": deep}, {"role": "system", "content": [{"text": deep}]}],
        ),
        log("b")._replace(body=b'{"response": ' + deep.encode() + b"}"),
    )
    for page in (*PAGES, "/session?id=a", "/log?id=1", "/log.json?id=1", "/text?id=1&field=context"):
        assert shown.get(page).status_code == 200, page
    for page in ("/log?id=2", "/log.json?id=2"):
        assert shown.get(page).status_code == 200, page


def test_a_turn_shows_its_time_tokens_and_cost(path: Path, shown: httpx.Client) -> None:
    put(
        path,
        log("a", prompt_tokens=331, completion_tokens=12, total_tokens=343, cost=0.0123, response_time=1500),
        log("a", prompt_tokens="many", completion_tokens=[], cost="dear"),
    )
    page = " ".join(unescape(re.sub(r"<[^>]+>", " ", shown.get("/session?id=a").text)).split())
    assert "343 tokens (331 in, 12 out) $0.0123 1.5 s" in page


def test_feedback_appears_in_lists_filters_search_and_charts(path: Path, shown: httpx.Client) -> None:
    good, bad, plain = log("a", user_query="Good?"), log("b", user_query="Bad?"), log("c", user_query="Plain?")
    put(path, good, bad, plain, feedback(good, 1), feedback(bad, -1, "the wrong parcel"))

    def questions(address: str) -> set[str]:
        return {word for word in ("Good?", "Bad?", "Plain?") if word in shown.get(address).text}

    for page in ("/", "/logs"):
        assert questions(page) == {"Good?", "Bad?", "Plain?"}
        assert shown.get(page).text.count('class="thumb up"') == 1
        assert shown.get(page).text.count('class="thumb down"') == 1
        assert questions(f"{page}?feedback=liked") == {"Good?"}
        assert questions(f"{page}?feedback=disliked") == {"Bad?"}
        assert questions(f"{page}?feedback=any") == {"Good?", "Bad?"}
        assert questions(f"{page}?feedback=nonsense") == set()
        assert questions(f"{page}?q=wrong+parcel") == {"Bad?"}
    page = " ".join(unescape(re.sub(r"<[^>]+>", " ", shown.get("/session?id=b").text)).split())
    assert "Disliked: the wrong parcel" in page
    assert "▼ 1 disliked" in page
    table = shown.get("/charts").text.partition('<table class="list sums">')[2].partition("</table>")[0]
    sums = re.findall(r'data-name="(liked|disliked)">(?:<a [^>]*>)?(\d+)<', table)
    assert sums == [("liked", "1"), ("disliked", "1")]


@pytest.mark.parametrize("page", ["/", "/logs"])
def test_an_empty_page_explains_why_and_what_to_set(path: Path, shown: httpx.Client, page: str) -> None:
    assert str(path) in shown.get(page).text
    assert "Nothing here yet." in shown.get(page).text
    put(path, entry := log())
    settle(path, forgotten=[entry.reference])
    text = " ".join(unescape(re.sub(r"<[^>]+>", "", shown.get(page).text)).split())
    assert "Everything was delivered, and nothing is kept here any more." in text
    assert "1 log, update or feedback has reached Athina" in text
    assert "ATHINA_KEEP_DELIVERED" in text
    assert "Decorate a function" not in text


def test_the_delivery_page_explains_why_nothing_is_sent(path: Path, shown: httpx.Client) -> None:
    put(path, log())
    outbox = SqliteOutbox(str(path))
    outbox.store.note("paused", "status 401: no such <key>", 0.0)
    assert "status 401: no such &lt;key&gt;" in shown.get("/delivery").text
    outbox.store.note("paused", None, 0.0)
    assert "Paused" not in shown.get("/delivery").text
    outbox.close()


# -- the retry buttons


def test_retry_makes_one_or_all_refused_logs_wait_again(path: Path, shown: httpx.Client) -> None:
    entries = [log(f"s{number}") for number in range(3)]
    put(path, *entries)
    settle(path, refused=[entry.reference for entry in entries])
    page = shown.get("/delivery").text
    assert page.count("user_query: Expected string") == 3
    one = shown.post("/retry", data={"secret": secret_of(shown), "id": "2"})
    assert (one.status_code, one.headers["location"]) == (303, "/delivery?again=1")
    rest = shown.post("/retry", data={"secret": secret_of(shown), "id": "all"}, follow_redirects=True)
    assert "2 entries wait again" in unescape(rest.text)
    with opened(path) as source, source.open() as db:
        states = db.execute("SELECT state, count(*) FROM box.entry GROUP BY 1").fetchall()
        counters = dict(db.execute("SELECT name, value FROM box.counter"))
        keys = db.execute("SELECT count(*) FROM box.ordering_key").fetchone()
    assert [tuple(row) for row in states] == [("waiting", 3)]
    assert counters["refused"] == 0
    assert keys[0] == 3


@pytest.mark.parametrize(
    ("form", "headers", "status"),
    [
        ({"id": "all"}, {}, 403),
        ({"id": "all", "secret": "guess"}, {}, 403),
        ({"id": "all", "secret": "gu\u00e9ss\u2603"}, {}, 403),
        ({"id": "all", "secret": None}, {"Origin": "https://evil.example"}, 403),
        ({"id": "all", "secret": None}, {"Origin": "null"}, 403),
        ({"id": "all", "secret": None}, {"Sec-Fetch-Site": "cross-site"}, 403),
        ({"id": "all", "secret": None}, {"Sec-Fetch-Site": "same-site"}, 403),
        ({"id": "x", "secret": None}, {}, 400),
        ({"secret": None}, {}, 400),
        ({"id": "all", "secret": "x" * 100_000}, {}, 403),
    ],
)
def test_forged_retry_requests_are_refused(
    path: Path, shown: httpx.Client, form: dict[str, str | None], headers: dict[str, str], status: int
) -> None:
    put(path, entry := log())
    settle(path, refused=[entry.reference])
    secret = secret_of(shown)
    data = {name: secret if value is None else value for name, value in form.items()}
    assert shown.post("/retry", data=data, headers=headers).status_code == status
    assert "Retry all 1" in shown.get("/delivery").text


def test_no_other_page_accepts_a_post(client: httpx.Client) -> None:
    for page in ("/", "/logs", "/log.json", "/live", "/static/style.css"):
        assert client.post(page).status_code in (404, 405)
    assert client.get("/retry").status_code == 405


# -- access


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "", "a@localhost", "[::1", "x" * 300])
def test_other_host_names_are_refused(client: httpx.Client, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code in (400, 421)
    assert "parcel" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.0.0.1:9", "[::1]:8000", "192.168.1.7"])
def test_localhost_and_ip_addresses_are_accepted_as_host(client: httpx.Client, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_the_length_of_a_url_is_limited(client: httpx.Client) -> None:
    assert client.get("/?q=" + "x" * 5000).status_code == 414


def test_the_token_is_required_and_then_remembered(path: Path) -> None:
    app = create_app(IndexedOutbox(str(path)), token="t0ken", names=["desk.example"])
    with Server(app, listen("127.0.0.1", 0)) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        for wrong in ("/", "/?token=guess", "/live", "/static/script.js"):
            assert client.get(wrong).status_code == 401
        assert client.post("/retry?token=t0ken").status_code == 401
        welcome = client.get("/logs?token=t0ken&q=a")
        assert (welcome.status_code, welcome.headers["location"]) == (303, "/logs?q=a")
        assert "httponly" in welcome.headers["set-cookie"].lower()
        assert "samesite=strict" in welcome.headers["set-cookie"].lower()
        assert client.get("/logs?q=a", headers={"Host": "desk.example"}).status_code == 200
        client.cookies.clear()
        assert client.get("/", headers={"Authorization": "Bearer t0ken"}).status_code == 200
        assert client.get("/%2Fevil.example/?token=t0ken").headers["location"] == "/evil.example/"


def test_the_live_number_changes_with_the_outbox(path: Path, shown: httpx.Client) -> None:
    put(path, entry := log())
    first = shown.get("/live").json()["version"]
    assert shown.get("/live").json()["version"] == first
    put(path, feedback(entry, 1))
    assert shown.get("/live").json()["version"] != first


def test_a_second_viewer_sees_the_same(path: Path, shown: httpx.Client) -> None:
    put(path, log("a"), log("b"))
    with opened(path) as source, source.open() as db:
        assert db.execute("SELECT count(*) FROM session").fetchone()[0] == 2
    assert "2 sessions, 2 logs" in unescape(shown.get("/").text)
