"""A web page that answers, and receives the thumbs-up later: the answer contains its log's reference.

    python examples/feedback_page.py        then open http://127.0.0.1:8000/?q=Where+is+my+parcel

Plain WSGI, so that nothing needs to be installed; with Flask or Django, the same middleware wraps the app.
"""

import html
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import make_server

from athina_trace import athina_trace, current_log, log_feedback
from athina_trace.web import Request, WSGIMiddleware

PAGE = """<!doctype html><title>Parcels</title>
<p>{answer}</p>
<form method="post" action="/feedback">
<input type="hidden" name="reference" value="{reference}">
<button name="thumb" value="1">Thumbs up</button> <button name="thumb" value="-1">Thumbs down</button>
</form>"""


@athina_trace(prompt_slug="parcels/v1")
def answer(question: str) -> tuple[str, str | None]:
    """Answer one question; return the reference as well, so that feedback finds the log."""
    text = f"Your parcel reaches you tomorrow. (You asked: {question})"
    log = current_log()
    log.update(response=text)
    return text, log.external_reference_id


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer questions, and receive feedback."""
    if environ["REQUEST_METHOD"] == "POST":
        size = min(int(environ.get("CONTENT_LENGTH") or 0), 10_000)
        form = parse_qs(environ["wsgi.input"].read(size).decode())
        log_feedback(form["reference"][0], 1 if form["thumb"][0] == "1" else -1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"Thank you."]
    question = parse_qs(environ.get("QUERY_STRING", "")).get("q", ["Hello"])[0]
    text, reference = answer(question)
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [PAGE.format(answer=html.escape(text), reference=reference).encode()]


def identify(request: Request) -> dict[str, object]:
    """Return who is asking; in your application, the user who is logged in."""
    return {"customer_id": "disney-usa-2314832", "session_id": request.headers.get("cookie")}


application = WSGIMiddleware(app, identify=identify)

if __name__ == "__main__":
    with make_server("127.0.0.1", 8000, application) as server:
        print("http://127.0.0.1:8000/?q=Where+is+my+parcel (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
