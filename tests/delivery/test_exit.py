"""Processes end in time, with nothing on standard error, and with every log delivered or still on disk."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

import athina_trace
from tests.support.athina_server import AthinaServer, delay, drip_headers, hang
from tests.support.processes import finish, run, start

_TRACED = """
    import asyncio, athina_trace, os, signal, sys, threading, time

    @athina_trace.athina_trace
    def answer(question):
        return question

    @athina_trace.athina_trace
    async def aanswer(question, seconds=0):
        await asyncio.sleep(seconds)
        return question
"""
_EXIT_SECONDS = 1.0
_MARGIN = 10.0  # for an interpreter to end on a busy machine; waiting for a hanging server would take far longer


@pytest.fixture
def environment(athina: AthinaServer, tmp_path: Path) -> dict[str, str]:
    return {
        "ATHINA_API_KEY": "key",
        "ATHINA_BASE_URL": athina.url,
        "ATHINA_OUTBOX": str(tmp_path / "outbox.db"),
        "ATHINA_EXIT_TIMEOUT": "20",
    }


@pytest.fixture
def hurried(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "ATHINA_EXIT_TIMEOUT": str(_EXIT_SECONDS)}


def questions(athina: AthinaServer) -> list[str]:
    return sorted({request.json["user_query"] for request in athina.accepted})


def deliver_the_rest(environment: dict[str, str]) -> None:
    """Deliver, from this process, what a process left."""
    athina_trace.configure(**{name.removeprefix("ATHINA_").lower(): value for name, value in environment.items()})
    assert athina_trace.flush(60)


ENDINGS = {
    "at its last line": ("", 0),
    "sys.exit": ("sys.exit(0)", 0),
    "an exit code": ("sys.exit(3)", 3),
    "an exception": ("raise ValueError('mine')", 1),
    "exit from another thread": ("threading.Thread(target=lambda: (answer('thread'), sys.exit(1))).start()", 0),
    "a thread that outlives the main one": (
        "threading.Thread(target=lambda: (time.sleep(.2), answer('late'))).start()",
        0,
    ),
    "asyncio.run": ("asyncio.run(aanswer('async'))", 0),
    "os._exit": ("os._exit(0)", 0),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "SIGINT": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(5)", -signal.SIGINT),
}
_ABRUPT = {"os._exit", "SIGTERM", "SIGKILL"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_however_a_process_ends_its_logs_arrive(ending: str, athina: AthinaServer, environment: dict[str, str]) -> None:
    code, expected = ENDINGS[ending]
    process = start(
        _TRACED
        + f"""
    answer("first"); answer("second")
    {code}
    """,
        **environment,
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == expected, err
    assert "athina" not in err
    if ending in _ABRUPT:
        deliver_the_rest(environment)
    logs = questions(athina)
    assert {"first", "second"} <= set(logs)
    assert len(logs) == 2 + any(word in code for word in ("late", "thread'", "async'"))
    # Requests in flight when a process was killed may have arrived already.
    assert len(athina.accepted) == len(logs) or ending in _ABRUPT


def test_a_process_of_celerys_pool_delivers_before_it_ends(athina: AthinaServer, environment: dict[str, str]) -> None:
    """It calls no exit handlers; a request that it cuts off would arrive twice."""
    athina.when(lambda request: True, delay(0.1))
    code = """
    from celery.signals import worker_process_shutdown
    answer("first"); answer("second")
    worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
    os._exit(0)
    """
    assert run(_TRACED + code, **environment) == ("", "")
    assert [request.json["user_query"] for request in athina.accepted] == ["first", "second"]


def test_a_flush_and_a_log_after_the_exit_hooks_wait_for_nobody(
    athina: AthinaServer, environment: dict[str, str]
) -> None:
    """Exit handlers registered before the first log run after deliveries have ended."""
    out, err = run(
        """
    import atexit, athina_trace, time
    def last():
        began = time.monotonic()
        first = athina_trace.flush(60)
        athina_trace.log_inference(user_query="late")
        second = athina_trace.flush(60)
        print(bool(first), bool(second), second.waiting, second.paused, time.monotonic() - began < 30)
        athina_trace.shutdown()
    atexit.register(last)
    athina_trace.log_inference(user_query="early")
    """,
        **environment,
    )
    assert (out, err) == ("True False 1 deliveries of this process have ended True\n", "")
    assert questions(athina) == ["early"]
    deliver_the_rest(environment)
    assert questions(athina) == ["early", "late"]


@pytest.mark.parametrize("fault", [hang, drip_headers(0.05)], ids=["hangs", "drips"])
def test_a_server_that_hangs_delays_an_exit_by_no_more_than_was_allowed(
    fault: object, athina: AthinaServer, hurried: dict[str, str]
) -> None:
    athina.when(lambda request: True, fault)  # type: ignore[arg-type]
    out, err = run(
        _TRACED
        + """
    for number in range(100):
        answer(str(number))
    time.sleep(0.3)
    print(time.time())
    """,
        **hurried,
    )
    assert time.time() - float(out) < _EXIT_SECONDS + _MARGIN
    assert err == ""
    athina.clear()
    deliver_the_rest(hurried)
    assert len(questions(athina)) == 100


def test_an_unreachable_server_delays_an_exit_by_no_more_than_was_allowed(
    athina: AthinaServer, hurried: dict[str, str]
) -> None:
    athina.stop()
    out, err = run(
        _TRACED
        + """
    for number in range(100):
        answer(str(number))
    print(time.time())
    """,
        **hurried,
    )
    assert time.time() - float(out) < _EXIT_SECONDS + _MARGIN
    assert "Traceback" not in err
    athina.start()
    deliver_the_rest(hurried)
    assert len(questions(athina)) == 100


def test_requests_in_flight_at_the_end_may_finish_and_nothing_arrives_twice(
    athina: AthinaServer, hurried: dict[str, str]
) -> None:
    athina.when(lambda request: True, delay(0.1))
    run(
        _TRACED
        + """
    from athina_trace._delivery import worker
    worker._UNDER_WAY_SECONDS = 10.0  # on a busy machine, too
    for number in range(500):
        answer(str(number))
    """,
        ATHINA_CONNECTIONS="4",
        **{**hurried, "ATHINA_EXIT_TIMEOUT": "8"},
    )
    assert 0 < len(athina.accepted) < 500
    athina.clear()
    deliver_the_rest(hurried)
    assert len(athina.accepted) == len(questions(athina)) == 500


def test_daemon_threads_still_calling_while_the_interpreter_ends_lose_nothing(
    athina: AthinaServer, environment: dict[str, str]
) -> None:
    out, err = run(
        _TRACED
        + """
    answer("first")  # loads what deliveries need, which takes long where nothing is compiled yet
    def talk(name):
        for number in range(10**6):
            answer(f"{name}:{number}")
            os.write(1, f"{name}:{number}\\n".encode())
            returned.append(number)
            time.sleep(0.001)
    returned = []
    for name in "ab":
        threading.Thread(target=talk, args=(name,), daemon=True).start()
    while len(returned) < 20:
        time.sleep(0.001)
    """,
        **environment,
    )
    assert err == ""
    deliver_the_rest(environment)
    returned = [line for line in out.splitlines() if ":" in line]
    assert len(returned) > 10
    assert not set(returned) - set(questions(athina))


def test_calls_in_flight_when_asyncio_ends_are_logged_as_cancelled(
    athina: AthinaServer, environment: dict[str, str]
) -> None:
    _, err = run(
        _TRACED
        + """
    async def main():
        for number in range(5):
            task = asyncio.ensure_future(aanswer(f"pending {number}", 60))
            globals().setdefault("tasks", []).append(task)
        await aanswer("done")
    asyncio.run(main())
    """,
        **environment,
    )
    assert err == ""
    assert questions(athina) == ["done", *(f"pending {number}" for number in range(5))]
    assert all(b"cancelled" in request.body for request in athina.accepted if request.json["user_query"] != "done")


def test_uvloop(athina: AthinaServer, environment: dict[str, str]) -> None:
    _, err = run(
        _TRACED
        + """
    import uvloop
    async def main():
        await asyncio.gather(*(aanswer(str(number), 0.01) for number in range(50)))
        assert await athina_trace.aflush(60)
    uvloop.install() if sys.version_info < (3, 11) else None
    asyncio.run(main()) if sys.version_info < (3, 11) else uvloop.run(main())
    """,
        **environment,
    )
    assert "Traceback" not in err
    assert len(athina.accepted) == 50


def test_gevent_with_everything_patched(athina: AthinaServer, environment: dict[str, str]) -> None:
    athina.when(lambda request: request.json["user_query"] == "slow", delay(2))
    _, err = run(
        """
    from gevent import monkey; monkey.patch_all()
    import gevent
    """
        + _TRACED
        + """
    ticks = []
    def tick():
        while True:
            ticks.append(None)
            gevent.sleep(0.01)
    ticker = gevent.spawn(tick)
    gevent.joinall([gevent.spawn(answer, str(number)) for number in range(50)])
    answer("slow")
    before = len(ticks)
    assert athina_trace.flush(60)
    assert len(ticks) > before + 10, "the loop stood still while the server took its time"
    ticker.kill()
    """,
        **environment,
    )
    assert "Traceback" not in err
    assert len(athina.accepted) == 51


def test_a_stream_that_is_never_read_to_its_end_is_logged_at_the_end(
    athina: AthinaServer, environment: dict[str, str]
) -> None:
    """The program's only log is made during interpreter shutdown, when nothing can be imported."""
    _, err = run(
        _TRACED
        + """
    @athina_trace.athina_trace
    def stream(question):
        yield "half "
        yield "an answer"
    chunks = stream("only")
    next(chunks)
    """,
        **environment,
    )
    deliver_the_rest(environment)
    assert (questions(athina), athina.accepted[0].json["response"], err) == (["only"], "half ", "")


def test_loop_after_loop_as_in_a_notebook(athina: AthinaServer, environment: dict[str, str]) -> None:
    run(
        _TRACED
        + """
    async def cell(number):
        await aanswer(f"cell {number}")
        assert await athina_trace.aflush(60)
    for number in range(5):
        asyncio.run(cell(number))
    loop = asyncio.new_event_loop()
    for number in range(5, 10):
        loop.run_until_complete(cell(number))
    loop.close()
    ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("athina")]
    assert len(ours) <= 1 + 8, ours
    """,
        **environment,
    )
    assert questions(athina) == sorted(f"cell {number}" for number in range(10))


def test_a_process_that_logged_nothing_leaves_nothing(tmp_path: Path) -> None:
    run("import athina_trace; athina_trace.configure()", ATHINA_API_KEY="key", XDG_STATE_HOME=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_child_of_a_fork_keeps_its_own_deadline(athina: AthinaServer, hurried: dict[str, str]) -> None:
    """It inherits its parent's exit hook, but must not wait for the parent's logs."""
    athina.when(lambda request: True, hang)
    out, err = run(
        _TRACED
        + """
    answer("parent")
    child = os.fork()
    if not child:
        answer("child")
        sys.exit(0)
    began = time.monotonic()
    assert os.waitpid(child, 0)[1] == 0
    print(time.monotonic() - began)
    """,
        **hurried,
    )
    assert float(out) < _EXIT_SECONDS + _MARGIN
    assert "Traceback" not in err
    athina.clear()
    deliver_the_rest(hurried)
    assert questions(athina) == ["child", "parent"]


def test_an_exit_within_a_signal_handler(athina: AthinaServer, environment: dict[str, str]) -> None:
    """As in servers: SIGTERM raises SystemExit, whatever the main thread is doing."""
    process = start(
        _TRACED
        + """
    import faulthandler
    faulthandler.dump_traceback_later(60, exit=True)  # if it hangs, say where
    def stop(*_):
        answer("last words")
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    answer("first")  # which loads modules, some of which swallow an exit that reaches them half loaded
    print("ready", flush=True)
    for number in range(10**6):
        answer(f"{number}")
    """,
        **environment,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    _, err = finish(process)
    assert err == ""
    deliver_the_rest(environment)
    assert "last words" in questions(athina)
    assert sys.version_info >= (3, 10)
