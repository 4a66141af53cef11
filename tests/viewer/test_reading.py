"""Readable answers: Markdown, code, errors, tools, pictures and costs."""

import base64
import re
import time
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace import _prices
from athina_trace._serialization import binary
from athina_trace.viewer import markdown
from athina_trace.viewer.attachments import attachments_of
from athina_trace.viewer.log_fields import log_row, readable_error, text_of, tool_calls
from athina_trace.viewer.markdown import MAX_PART, parts, render
from tests.viewer.outboxes import log, put

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # one pixel


# -- Markdown and code


def test_code_is_highlighted_with_its_language_and_a_copy_button() -> None:
    html = str(render("```python\ndef f(x): return '<b>'\n```"))
    assert '<span class="k">def</span>' in html
    assert "<figcaption>python<button" in html
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


@pytest.mark.parametrize("info", ["", "klingon", "<script>", "a" * 100, "python {.x}"])
def test_code_of_any_language_is_shown(info: str) -> None:
    html = str(render(f"```{info}\n1 < 2\n```"))
    text = unescape(re.sub(r"<[^>]+>", "", html))
    assert "1 < 2" in text
    assert "<script>" not in html


@pytest.mark.parametrize("language", sorted(markdown._LANGUAGES))
def test_every_language_is_one_that_pygments_knows(language: str) -> None:
    assert '<figure class="code">' in str(render(f"```{language}\nx = 1\n```"))


def test_task_lists_have_checkboxes() -> None:
    html = str(render("- [ ] a\n- [x] **b**\n- [y] c\n\n[ ] d"))
    assert html.count("<input type=") == 2
    assert html.count(" checked") == 1
    assert "[y] c" in html
    assert "[ ] d" in html


LONG = "\n\n".join(f"## Part {number}\n\n{'word ' * 100}**bold**" for number in range(60))


def test_markdown_of_any_length_is_rendered() -> None:
    assert len(LONG) > 3 * MAX_PART
    html = str(render(LONG))
    assert html.count("<h4>") == html.count("<strong>") == 60
    assert "**" not in html


def test_a_long_code_block_stays_one_block() -> None:
    code = "\n\n".join(f"line {number}" for number in range(3000))
    html = str(render(f"before\n\n````text\n{code}\n```\nstill code\n````\n\nafter"))
    assert html.count("<figure") == 1
    assert "<p>after</p>" in html


@given(st.lists(st.sampled_from(["word " * 300 + "\n", "\n", "```\n", "~~~~ py\n", "````\n", "- a\n"]), max_size=40))
def test_the_parts_of_a_text_are_the_whole_text(lines: list[str]) -> None:
    text = "".join(lines)
    assert "".join(parts(text)) == text


HOSTILE = {
    "stars": "*a **" * 4000,
    "brackets": "[" * 20_000,
    "links": "[a](" * 5000,
    "ticks": "`" * 10_000 + " " + "`" * 9_999,
    "lists": "- " * 10_000,
    "tables": "|a" * 100 + "\n" + "|-" * 100 + "\n" + ("|b" * 100 + "\n") * 90,
    "code": "```python\n" + '"' * 19_000 + "\n```",
    "json": "```json\n" + "[" * 19_000 + "\n```",
    "yaml": "```yaml\n" + "a: " * 6_000 + "\n```",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_takes_long_to_render(text: str) -> None:
    began = time.thread_time()
    render(text[:20_000])
    assert time.thread_time() - began < 3.0


# -- errors


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        (
            "RateLimitError: Error code: 429 - {'error': {'message': 'Slow down.', 'type': 'tokens', 'code': None}}",
            "RateLimitError 429: Slow down.",
        ),
        ('BadRequestError: Error code: 400 - {"message": "No.", "ok": false}', "BadRequestError 400: No."),
        ("Error code: 500 - {'detail': \"It's down\"}", "500: It's down"),
        ("[{'error': {'code': 400, 'message': 'API key not valid.'}}]", "API key not valid."),
        ("{'error': 'plain'}", "plain"),
        ("ValueError: no parcel", "ValueError: no parcel"),
        ("KeyError: {'a': 1}", "KeyError: {'a': 1}"),
        ("f({broken", "f({broken"),
        ("x {'a': " + "[" * 3000 + "]" * 3000 + "}", None),
        ("x [" + "(" * 9000 + "]", None),
        ("", ""),
    ],
)
def test_the_message_of_an_error_is_extracted(text: str, readable: str | None) -> None:
    assert readable_error(text) == (text if readable is None else readable)


@given(st.text(max_size=60) | st.text("{}[]'\":,aError code 429 -", max_size=60))
def test_any_text_can_be_an_error(text: str) -> None:
    assert readable_error(text) or not text


def test_an_error_is_short_in_lists_and_whole_in_the_details(path: Path, shown: httpx.Client) -> None:
    error = "RateLimitError: Error code: 429 - {'error': {'message': 'Slow down.', 'type': 'tokens'}}"
    put(path, log("a", error=error, status_code=429))
    for page in ("/logs", "/session?id=a"):
        assert "RateLimitError 429: Slow down." in shown.get(page).text
    assert "&#39;type&#39;: &#39;tokens&#39;" in shown.get("/session?id=a").text


# -- tools


@pytest.mark.parametrize(
    ("call", "is_failure"),
    [
        ({"output": "Error: no such parcel"}, True),
        ({"output": "Traceback (most recent call last):"}, True),
        ({"output": "TimeoutError: 5 s"}, True),
        ({"output": "  requests.exceptions.ConnectionError()"}, True),
        ({"output": '{"error": "no courier"}'}, True),
        ({"output": {"isError": True, "content": []}}, True),
        ({"output": '{"status": "failed"}'}, True),
        ({"error": {"message": "boom"}}, True),
        ({"status": "failed"}, True),
        ({"output": '{"error": null, "status": "ok"}'}, False),
        ({"output": '{"errors": 0}'}, False),
        ({"output": "No errors were found"}, False),
        ({"output": "errorless"}, False),
        ({"output": "{broken error"}, False),
        ({"output": [1]}, False),
        ({}, False),
    ],
)
def test_a_failed_tool_call_is_distinguished_from_a_successful_one(call: dict[str, Any], is_failure: bool) -> None:
    (found,) = tool_calls({"tool_calls": [{"name": "t", **call}]})
    assert found.failed is is_failure
    assert log_row(1, 0.0, "r", {"tool_calls": [{"name": "t", **call}]}, size=1).failed_tools == is_failure


def test_a_failed_tool_call_is_visible_without_a_click(path: Path, shown: httpx.Client) -> None:
    put(path, log("a", tool_calls=[{"name": "book", "output": '{"error": "No courier is free."}'}]))
    summary = re.search(r"<summary>Tool call.*?</summary>", shown.get("/session?id=a").text)
    assert summary is not None
    assert "failed: No courier is free." in summary[0]
    assert "tool failed" in shown.get("/logs").text


# -- images and files


def question(*content: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *content]}]}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}, ("image", "https://a.example/x.png")),
        ({"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}, ("image", "image/png")),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            ("image", "image/png"),
        ),
        ({"type": "input_file", "filename": "invoice.pdf", "file_id": "f1"}, ("file", "invoice.pdf")),
        ({"type": "file", "file": {"file_id": "f2"}}, ("file", "f2")),
        ({"type": "image_url", "image_url": {"url": "<5000 base64 characters of image/png>"}}, ("image", "image/png")),
        ({"type": "image_url", "image_url": 5}, ("image", "image")),
        (
            {"type": "input_audio", "input_audio": {"data": "<5000 base64 characters>", "format": "wav"}},
            ("file", "audio/wav"),
        ),
        ({"type": "file", "data": "<5000 bytes of application/pdf>", "mime_type": "x"}, ("file", "application/pdf")),
        ({"type": "image", "data": PNG, "mime_type": "image/png"}, ("image", "image/png")),
        (
            {"type": "document", "title": "Terms", "source": {"type": "url", "url": "https://a.example/t"}},
            ("file", "Terms"),
        ),
    ],
)
def test_attachments_of_a_question_are_found(part: dict[str, Any], expected: tuple[str, str]) -> None:
    (found,) = attachments_of(question(part))
    assert (found.kind, found.name) == expected


@pytest.mark.parametrize(
    ("name", "url", "note"),
    [
        ("", "<5000 base64 characters of image/png>", "3.8 KB, not kept"),
        ("cat.png", "<5000 base64 characters of image/png>", "image/png, 3.8 KB, not kept"),
        ("", "data:image/webp;base64,<1200000 base64 characters>", "900.0 KB, not kept"),
        ("", "<700 bytes of image/gif>", "700 bytes, not kept"),
        ("", f"<{'9' * 400} bytes>", "image, 408 characters"),
    ],
)
def test_a_note_describes_attachment_data_that_was_replaced(name: str, url: str, note: str) -> None:
    (found,) = attachments_of(question({"type": "image", "filename": name, "url": url}))
    assert found.note == note
    assert found.was_replaced == ("not kept" in note)


def test_an_image_that_was_not_kept_is_shown_by_type_and_size(path: Path, shown: httpx.Client) -> None:
    large = f"data:image/png;base64,{PNG * 200}"
    earlier = {"type": "image_url", "image_url": {"url": large}}
    before = {"role": "user", "content": [{"type": "text", "text": "An earlier one"}, earlier]}
    body = {"prompt": [before, *question(earlier)["prompt"]]}
    put(path, log("a", user_query="What is this?", **binary.without_blobs(body)))
    page = unescape(shown.get("/session?id=a").text)
    assert '<img src="/image?' not in page
    assert page.count(f"{len(large) * 0.75 / 1000:.1f} KB, not kept") == 2  # with the question, and earlier
    assert page.count('title="Logs keep the type and the size') == 2


def test_a_question_with_an_image_is_still_a_question(path: Path, shown: httpx.Client) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    fields = question(picture, {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}})
    put(path, log("a", user_query="", **fields))
    page = shown.get("/session?id=a").text
    assert '<p class="role">User</p>' in page
    assert "What is this?</h1>" in page
    assert '<img src="/image?id=1&amp;n=0" alt="image/png"' in page
    assert 'href="https://a.example/x.png" target="_blank" rel="noopener noreferrer nofollow"' in page
    answer = shown.get("/image?id=1&n=0")
    assert (answer.headers["content-type"], answer.content) == ("image/png", base64.b64decode(PNG))
    for wrong in ("/image?id=1&n=1", "/image?id=1&n=9", "/image?id=2&n=0", "/image"):
        assert shown.get(wrong).status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:text/html;base64,PGI+",
        "javascript:alert(1)",
        "data:image/png;base64," + "A" * 4_000_000,
        "data:image/png;base64,A",
        "file:///etc/passwd",
    ],
)
def test_only_images_are_served_as_images(path: Path, shown: httpx.Client, url: str) -> None:
    put(path, log("a", **question({"type": "image_url", "image_url": {"url": url}})))
    assert shown.get("/image?id=1&n=0").status_code == 404
    assert f'href="{url[:20]}' not in shown.get("/session?id=a").text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}], "a"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([{"a": 1}], '[{"a": 1}]'),
        ([{"text": "a"}, {"score": 1}], '[{"text": "a"}, {"score": 1}]'),
    ],
)
def test_the_text_of_a_message_is_that_of_its_parts(value: Any, text: str) -> None:
    assert text_of(value) == text


# -- long answers


def test_long_messages_are_not_kept_in_memory(path: Path, shown: httpx.Client) -> None:
    put(path, log("a", response="A paragraph.\n\n" * 12_000))
    render.cache_clear()
    assert "A paragraph." in shown.get("/message?id=1&field=response").text
    assert render.cache_info().currsize == 0
    shown.get("/session?id=a")
    assert render.cache_info().currsize == 1


def test_a_long_answer_is_folded_and_can_be_unfolded(path: Path, shown: httpx.Client) -> None:
    put(path, log("a", response=LONG), log("b", response="short"))
    page = shown.get("/session?id=a").text
    assert 'class="prose long folded"' in page
    assert "Show all" in page
    assert "Show all" not in shown.get("/session?id=b").text
    whole = shown.get("/message?id=1&field=response").text
    assert whole.count("<h4>") == 60
    assert shown.get("/message?id=1&field=prompt").status_code == 404
    assert shown.get("/message?id=nothing&field=response").status_code == 404


# -- costs


def spent(**fields: Any) -> dict[str, Any]:
    return {"language_model_id": "gpt-4o-mini", "prompt_tokens": 1000, "completion_tokens": 100, **fields}


@pytest.mark.parametrize(
    ("fields", "cost", "is_estimate", "is_unpriced"),
    [
        (spent(cost=0.5), 0.5, False, False),
        (spent(), 0.00021, True, False),
        (spent(custom_attributes={"cached_tokens": 1000}), 0.000135, True, False),
        (spent(language_model_id="nobody-knows-it"), None, False, True),
        (spent(language_model_id="nobody-knows-it", error="boom"), None, False, False),
        (spent(completion_tokens=None), None, False, True),
        (spent(prompt_tokens=-5), None, False, True),
        ({"language_model_id": "unknown"}, None, False, False),
        ({}, None, False, False),
    ],
)
def test_a_cost_is_given_estimated_or_unknown(
    fields: dict[str, Any], cost: float | None, is_estimate: bool, is_unpriced: bool
) -> None:
    row = log_row(1, time.time(), "r", fields, size=1)
    assert row.cost == (None if cost is None else pytest.approx(cost))
    assert (row.is_estimate, row.is_unpriced) == (is_estimate, is_unpriced)


def test_without_a_price_table_nothing_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_prices, "AVAILABLE", False)
    row = log_row(1, time.time(), "r", spent(), size=1)
    assert (row.cost, row.is_unpriced) == (None, True)


@pytest.mark.parametrize("made", [0.0, -1e12, 1e18, float("inf")])
def test_prices_can_be_looked_up_for_any_date(made: float) -> None:
    found = _prices.estimate("gpt-4o-mini", prompt=1, completion=1, made=made)
    assert found is None or found > 0


def test_pages_mark_estimates_and_partial_sums(path: Path, shown: httpx.Client) -> None:
    put(path, log("a", **spent()), log("a", **spent(language_model_id="nobody-knows-it")), log("b", **spent(cost=0.5)))
    page = " ".join(unescape(re.sub(r"<[^>]+>", " ", shown.get("/").text)).split())
    assert "≈ $0.0002 +" in page
    assert "$0.5000" in page
    assert "≈ $0.5" not in page
    talk = " ".join(unescape(re.sub(r"<[^>]+>", " ", shown.get("/session?id=a").text)).split())
    assert "≈ $0.0002 estimated, partial" in talk
    charts = unescape(re.sub(r"<[^>]+>", " ", shown.get("/charts").text))
    assert "≈ $0.5002 +" in charts
