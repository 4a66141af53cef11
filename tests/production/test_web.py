"""Each request is its own scope: shown on real servers, with a hundred concurrent customers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

import athina_trace as at
from athina_trace.context import current_scope
from athina_trace.testing import CapturedLogs, captured_logs
from athina_trace.web import ASGIMiddleware, Request, WSGIMiddleware
from tests.production import apps
from tests.production.servers import gunicorn_server, uvicorn_server, waitress_server
from tests.support.athina_server import AthinaServer


def check_owners(logs: Iterable[Any]) -> None:
    """Check that each customer asked two questions, only in its own session."""
    found = sorted((log["user_query"], log["customer_id"], log["session_id"], log["response"]) for log in logs)
    expected = sorted(
        (f"question {turn} of {n}", f"customer {n}", f"session {n}", f"answer to question {turn} of {n}")
        for n in range(apps.CUSTOMERS)
        for turn in range(2)
    )
    assert found == expected


@pytest.mark.parametrize("path", ["/ask", "/streamed", "/events", "/later"])
def test_starlette_on_uvicorn_gives_each_request_its_own_scope(athina_logs: CapturedLogs, path: str) -> None:
    with uvicorn_server(apps.starlette_app()) as url:
        apps.ask_as_a_hundred(url, path)
    check_owners(athina_logs.wire)


@pytest.mark.parametrize("path", ["/ask", "/streamed", "/later"])
def test_fastapi_on_uvicorn_gives_each_request_its_own_scope(athina_logs: CapturedLogs, path: str) -> None:
    with uvicorn_server(apps.fastapi_app()) as url:
        apps.ask_as_a_hundred(url, path)
    check_owners(athina_logs.wire)


@pytest.mark.parametrize("path", ["/ask", "/streamed", "/later"])
def test_values_set_in_a_requests_thread_hold_for_the_request(athina_logs: CapturedLogs, path: str) -> None:
    with uvicorn_server(apps.naming_app()) as url:
        apps.ask_as_a_hundred(url, path)
    check_owners(athina_logs.wire)


def test_values_set_in_the_tasks_of_a_request_stay_in_those_tasks() -> None:
    async def ask(session: str) -> object:
        at.set_session(session)
        await asyncio.sleep(0)
        return current_scope().fields.get("session_id")

    found: list[object] = []

    async def app(*_: object) -> None:
        found.extend(await asyncio.gather(*(asyncio.create_task(ask(name)) for name in "ab")))
        with at.athina_session("of its own"):
            await asyncio.to_thread(at.set_session, "lost with the thread's copy of the context")
            found.append(current_scope().fields.get("session_id"))
        found.append(current_scope().fields.get("session_id"))

    asyncio.run(ASGIMiddleware(app)({"type": "http", "headers": []}, None, None))  # type: ignore[arg-type]
    assert found == ["a", "b", "of its own", None]


def test_values_set_in_threads_of_one_request_do_not_mix(athina_logs: CapturedLogs) -> None:
    all_set = threading.Barrier(2)

    def work(customer: str) -> None:
        at.set_customer(customer)
        all_set.wait(60)
        at.set_session(f"session of {customer}")
        at.log_inference(response="in the thread", user_query=customer)

    @at.athina_trace
    async def batch(user_query: str) -> str:
        await asyncio.gather(*(asyncio.to_thread(work, customer) for customer in "ab"))
        return user_query

    async def app(*_: object) -> None:
        await batch("call that was running")
        at.log_inference(response="afterwards", user_query="afterwards")

    asyncio.run(ASGIMiddleware(app)({"type": "http", "headers": []}, None, None))  # type: ignore[arg-type]
    found = {each["user_query"]: (each.get("session_id"), each.get("customer_id")) for each in athina_logs.wire}
    afterwards = found.pop("afterwards")
    assert found == {"a": ("session of a", "a"), "b": ("session of b", "b"), "call that was running": (None, None)}
    assert afterwards[0] in ("session of a", "session of b")
    assert afterwards[1] in ("a", "b")


@pytest.mark.parametrize("app", [apps.flask_app, apps.django_app])
@pytest.mark.parametrize("path", ["/ask", "/streamed"])
def test_flask_and_django_on_waitress_give_each_request_its_own_scope(
    athina_logs: CapturedLogs, app: Callable[[], Any], path: str
) -> None:
    with waitress_server(app()) as url:
        apps.ask_as_a_hundred(url, path)
    check_owners(athina_logs.wire)


@pytest.mark.parametrize("name", ["flask", "django"])
def test_flask_and_django_on_gunicorn_give_each_request_its_own_scope(
    athina: AthinaServer, tmp_path: Any, name: str
) -> None:
    environment = {"ATHINA_API_KEY": "key", "ATHINA_BASE_URL": athina.url, "XDG_STATE_HOME": str(tmp_path)}
    with gunicorn_server(f"tests.production.gunicorn_apps:{name}", environment) as url:
        apps.ask_as_a_hundred(url, "/streamed")
        athina.wait_for(2 * apps.CUSTOMERS, timeout=100)
    check_owners(request.json for request in athina.accepted)


def test_each_websocket_has_its_own_scope(athina_logs: CapturedLogs) -> None:
    with uvicorn_server(apps.starlette_app()) as url, ExitStack() as opened:
        address = url.replace("http", "ws") + "/talk"
        sockets = [
            opened.enter_context(
                connect(address, additional_headers={"x-customer": f"customer {n}"}, compression=None, proxy=None)
            )
            for n in range(20)
        ]
        for turn in range(2):
            for number, socket in enumerate(sockets):
                socket.send(f"question {turn} of {number}")
            for number, socket in enumerate(sockets):
                assert socket.recv() == f"answer to question {turn} of {number}"
    assert len(athina_logs) == 40
    assert all(log.customer_id == f"customer {str(log.user_query).split()[-1]}" for log in athina_logs)


@pytest.mark.parametrize("app", [apps.starlette_app, apps.flask_app])
def test_values_set_by_a_handler_end_with_its_request(athina_logs: CapturedLogs, app: Callable[[], Any]) -> None:
    server = uvicorn_server if app is apps.starlette_app else waitress_server
    with server(app()) as url, httpx.Client(base_url=url, trust_env=False) as client:  # all over one connection
        client.get("/named", params={"q": "1"}, headers={"x-customer": "a"})
        client.get("/ask", params={"q": "2"}, headers={"x-customer": "b"})
    assert [log.customer_id for log in athina_logs] == ["named a", "b"]


def test_exceptions_are_raised_and_the_next_request_is_served(athina_logs: CapturedLogs) -> None:
    with uvicorn_server(apps.starlette_app()) as url:
        broken = httpx.get(f"{url}/broken?q=1", headers={"x-customer": "a"}, trust_env=False)
        served = httpx.get(f"{url}/ask?q=2", headers={"x-customer": "b"}, trust_env=False)
    assert (broken.status_code, served.status_code) == (500, 200)
    assert [log.customer_id for log in athina_logs] == ["a", "b"]


# -- trusted headers


def scope_behind(*, peer: str | None = "10.1.2.3", value: str = "disney", **options: Any) -> dict[str, Any]:
    """Return the scope's fields inside an ASGI and a WSGI application, which must be the same."""
    seen: list[dict[str, Any]] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(dict(current_scope().fields))

    def old_app(_environ: Any, _start: Any) -> list[bytes]:
        seen.append(dict(current_scope().fields))
        return []

    http = {"type": "http", "path": "/", "headers": [(b"X-Customer-Id", value.encode("latin-1"))]}
    asyncio.run(ASGIMiddleware(app, **options)({**http, "client": (peer, 1) if peer else None}, None, None))  # type: ignore[arg-type]
    WSGIMiddleware(old_app, **options)({"HTTP_X_CUSTOMER_ID": value, "REMOTE_ADDR": peer or ""}, lambda *_: None)
    assert seen[0] == seen[1]
    assert current_scope().fields == {}
    return seen[0]


HEADERS = {"X-Customer-Id": "customer_id"}


def test_headers_from_untrusted_peers_are_ignored() -> None:
    assert scope_behind() == {}
    assert scope_behind(headers=HEADERS, trusted=["192.168.0.0/16"]) == {}
    assert scope_behind(headers=HEADERS, trusted=["10.0.0.0/8"]) == {"customer_id": "disney"}
    assert scope_behind(headers=HEADERS, trusted=["10.0.0.0/8"], peer="::ffff:10.1.2.3") == {"customer_id": "disney"}
    assert scope_behind(headers=HEADERS, trusted=["10.0.0.0/8"], peer=None) == {}
    assert scope_behind(headers=HEADERS, trusted="*", peer=None) == {"customer_id": "disney"}


@pytest.mark.parametrize("value", ["", " ", "a\tb", "x" * 257])
def test_header_values_that_are_not_identifiers_are_ignored(value: str) -> None:
    assert scope_behind(headers=HEADERS, trusted="*", value=value) == {}


def test_headers_require_trusted_and_known_fields() -> None:
    with pytest.raises(TypeError, match=r"headers=\.\.\. needs trusted="):
        WSGIMiddleware(lambda *_: [], headers=HEADERS)
    with pytest.raises(TypeError, match="customer_name"):
        WSGIMiddleware(lambda *_: [], headers={"x": "customer_name"}, trusted="*")


def test_identify_sees_the_request_and_wins_over_headers() -> None:
    def identify(request: Request) -> dict[str, object]:
        assert request.headers["x-customer-id"] == "disney"
        assert request.peer == "10.1.2.3"
        return {"customer_id": 7, "environment": None}

    assert scope_behind(headers=HEADERS, trusted="*", identify=identify) == {"customer_id": "7"}
    assert scope_behind(identify=lambda _: None) == {}


def test_identify_sees_the_results_of_outer_middleware() -> None:
    seen: list[Any] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        return

    def identify(request: Request) -> dict[str, object]:
        seen.append((request.user, request.state["tenant"], request.path))
        return {}

    scope = {"type": "websocket", "path": "/x", "headers": [], "user": "michael", "state": {"tenant": "disney"}}
    asyncio.run(ASGIMiddleware(app, identify=identify)(scope, None, None))  # type: ignore[arg-type]
    assert seen == [("michael", "disney", "/x")]


def test_a_request_is_served_if_identify_fails(caplog: pytest.LogCaptureFixture) -> None:
    def identify(_request: Request) -> dict[str, object]:
        raise LookupError("no such user")

    assert scope_behind(identify=identify) == {}
    assert "LookupError" in caplog.text


# -- WSGI's iterables


def test_close_of_the_body_is_called_in_the_requests_scope() -> None:
    class Body:
        def __iter__(self) -> Any:
            yield str(current_scope().fields["customer_id"]).encode()

        def close(self) -> None:
            closed.append(current_scope().fields["customer_id"])

    closed: list[str] = []
    app = WSGIMiddleware(lambda *_: Body(), identify=lambda _: {"customer_id": "a"})
    body = app({}, lambda *_: None)
    assert list(body) == [b"a"]
    body.close()  # type: ignore[attr-defined]
    assert closed == ["a"]
    assert current_scope().fields == {}


def test_lists_and_file_wrappers_are_returned_unchanged() -> None:
    class FileWrapper(list[bytes]):
        pass

    environ = {"wsgi.file_wrapper": FileWrapper}
    for body in ([b"whole"], FileWrapper([b"file"])):
        assert WSGIMiddleware(lambda *_, body=body: body)(environ, lambda *_: None) is body


def test_lifespan_events_are_passed_on() -> None:
    seen: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(ASGIMiddleware(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_threads_without_a_context_belong_to_the_only_capture() -> None:
    with captured_logs() as logs, at.ContextThreadPoolExecutor(1) as pool:
        pool.submit(apps.answer, "q").result()
    logs.assert_one(user_query="q")
