"""Many processes on one outbox: forked, spawned, killed and replaced, each with real files, sockets and signals."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.athina_server import AthinaServer, delay
from tests.support.crashes import CrashTest
from tests.support.processes import finish, run, start

_TRACED = """
    import athina_trace, multiprocessing, os, sys, threading, time

    @athina_trace.athina_trace
    def answer(session_id, question):
        return f"answer to {question}"
"""


@pytest.fixture
def environment(athina: AthinaServer, tmp_path: Path) -> dict[str, str]:
    return {
        "ATHINA_API_KEY": "key",
        "ATHINA_BASE_URL": athina.url,
        "ATHINA_OUTBOX": str(tmp_path / "shared" / "outbox.db"),
    }


def questions(athina: AthinaServer) -> Counter[str]:
    return Counter(request.json["user_query"] for request in athina.accepted)


def references(athina: AthinaServer) -> set[str]:
    return {request.json["external_reference_id"] for request in athina.accepted}


def test_eight_processes_of_two_hundred_calls_are_delivered_each_once(
    athina: AthinaServer, environment: dict[str, str]
) -> None:
    script = (
        _TRACED
        + """
    for number in range(200):
        answer(f"s{sys.argv[1]}-{number % 20}", f"{sys.argv[1]}:{number}")
    """
    )
    # Long enough for a busy machine: what is under way at the end of a process is cut when its time is over.
    workers = [start(script, str(number), ATHINA_EXIT_TIMEOUT="30", **environment) for number in range(8)]
    for worker in workers:
        finish(worker, timeout=100)
    out, _ = run("import athina_trace; assert athina_trace.flush(60); print(athina_trace.status())", **environment)
    assert len(references(athina)) == 1_600
    assert set(questions(athina).values()) == {1}, out
    order: dict[str, int] = {}
    for request in athina.accepted:
        number = int(request.json["user_query"].split(":")[1])
        assert order.get(request.json["session_id"], -1) < number
        order[request.json["session_id"]] = number


def test_a_prefork_server_and_its_children_deliver_everything(
    athina: AthinaServer, environment: dict[str, str]
) -> None:
    """Like gunicorn: the parent has logged already, forks workers, and replaces those that die."""
    script = (
        _TRACED
        + """
    import signal
    for number in range(20):
        answer("parent", f"before {number}")

    def work(name):
        for number in range(50):
            answer(f"worker {name}", f"{name}:{number}")
            if name == "victim" and number == 30:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(0)  # with its own exit hooks

    children = []
    for name in ("one", "two", "victim", "heir"):
        child = os.fork()
        if not child:
            work(name)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert [bool(status) for status in statuses] == [False, False, True, False], statuses
    answer("parent", "after")
    assert athina_trace.flush(60)
    """
    )
    run(script, **environment)
    names = Counter(question.split(":")[0].split(" ")[0] for question in questions(athina))
    assert names == {"before": 20, "after": 1, "one": 50, "two": 50, "victim": 31, "heir": 50}
    assert set(questions(athina).values()) == {1}


def run_with_children(method: str, work: str, script: str, folder: Path, environment: dict[str, str]) -> str:
    """Run `script` as a program whose children import it again; return what it wrote to standard error.

    It can import the module `work`, and has multiprocessing's context for `method` as `context`.
    """
    (folder / "work.py").write_text(dedent(work))
    head = f"""
        import multiprocessing, sys
        sys.path.insert(0, {str(folder)!r})
        import work, athina_trace
        context = multiprocessing.get_context({method!r})
    """
    main = folder / "main.py"
    main.write_text(dedent(head) + dedent(script))
    # Long enough for a busy machine: what is under way at the end of a process is cut when its time is over.
    patient = {**environment, "ATHINA_EXIT_TIMEOUT": "20"}
    return run(f"import runpy; runpy.run_path({str(main)!r}, run_name='__main__')", **patient)[1]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str, athina: AthinaServer, environment: dict[str, str], tmp_path: Path) -> None:
    work = """
    import athina_trace
    @athina_trace.athina_trace
    def answer(question):
        return question
    def work(name):
        for number in range(20):
            answer(f"{name}:{number}")
    """
    script = """
    if __name__ == "__main__":
        work.work("parent")
        children = [context.Process(target=work.work, args=(f"child{number}",)) for number in range(3)]
        for child in children: child.start()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0, 0, 0]
        assert athina_trace.flush(60)
    """
    run_with_children(method, work, script, tmp_path, environment)
    assert len(questions(athina)) == 80
    assert set(questions(athina).values()) == {1}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_delivers_before_it_ends(
    method: str, athina: AthinaServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """Before Python 3.13, such a child calls no atexit handlers, unless it was spawned."""
    work = """
    import athina_trace
    def work(name):
        for number in range(3):
            athina_trace.log_inference(user_query=f"{name}:{number}", session_id=name)
    """
    script = """
    if __name__ == "__main__":
        children = [context.Process(target=work.work, args=(name,)) for name in "ab"]
        for child in children: child.start()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0, 0]
    """
    athina.when(lambda _: True, delay(0.1))  # so long that a child that did not wait would have ended
    run_with_children(method, work, script, tmp_path, environment)
    assert questions(athina) == dict.fromkeys(["a:0", "a:1", "a:2", "b:0", "b:1", "b:2"], 1)


@pytest.mark.parametrize("seconds", [0.0, 0.6], ids=["after the end", "while it ends"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_threads_that_outlive_a_childs_function_are_delivered_too(
    method: str, seconds: float, athina: AthinaServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """Before Python 3.13, a child's finalizers run before its threads are joined."""
    athina.when(lambda _: True, delay(seconds))
    work = """
    import athina_trace, threading, time
    def late():
        time.sleep(0.3)
        athina_trace.log_inference(user_query="late")
        assert athina_trace.flush(60)
    def work():
        athina_trace.log_inference(user_query="early")
        threading.Thread(target=late).start()
    """
    script = """
    if __name__ == "__main__":
        child = context.Process(target=work.work)
        child.start(); child.join()
        assert child.exitcode == 0
    """
    assert run_with_children(method, work, script, tmp_path, environment) == ""
    assert questions(athina) == {"early": 1, "late": 1}


def test_a_fork_in_the_middle_of_a_call_gives_two_logs_with_references_of_their_own(
    athina: AthinaServer, environment: dict[str, str]
) -> None:
    script = (
        _TRACED
        + """
    @athina_trace.athina_trace
    def forked(question):
        before = athina_trace.current_log().external_reference_id
        child = os.fork()
        return "child" if child == 0 else f"parent of {child} {before}"

    answer("s", "warm")
    result = forked("who am I?")
    if result == "child":
        sys.exit(0)
    os.waitpid(int(result.split()[2]), 0)
    assert athina_trace.flush(60)
    """
    )
    run(script, **environment)
    logs = {request.json["response"].split()[0]: request.json for request in athina.accepted}
    assert set(logs) == {"answer", "parent", "child"}
    assert logs["parent"]["external_reference_id"] == logs["parent"]["response"].split()[-1]
    assert logs["child"]["external_reference_id"] != logs["parent"]["external_reference_id"]


def test_a_fork_while_every_lock_is_held_leaves_a_child_that_logs(
    athina: AthinaServer, environment: dict[str, str]
) -> None:
    """Threads log without a pause while the main thread forks repeatedly: in each child, some lock is held."""
    script = (
        _TRACED
        + """
    stopping = threading.Event()
    def talk(name):
        number = 0
        while not stopping.is_set():
            answer(name, f"{name}:{number}")
            number += 1
            time.sleep(0.01)
    threads = [threading.Thread(target=talk, args=(f"thread{number}",)) for number in range(4)]
    for thread in threads: thread.start()
    children = []
    for number in range(10):
        child = os.fork()
        if not child:
            answer(f"child{number}", f"child{number}:0")
            report = athina_trace.flush(60)  # a child that deadlocks never ends; a busy machine may be slow
            if not report:
                print(number, report, athina_trace.status(), file=sys.stderr, flush=True)
            athina_trace.shutdown()
            os._exit(0 if report else 1)
        children.append(child)
        time.sleep(0.02)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    stopping.set()
    for thread in threads: thread.join()
    assert athina_trace.flush(60)
    assert statuses == [0] * 10, statuses
    """
    )
    run(script, **environment, timeout=100)
    assert sum(question.startswith("child") for question in questions(athina)) == 10
    assert set(questions(athina).values()) == {1}


def test_a_child_holds_nothing_of_its_parents_outbox(athina: AthinaServer, environment: dict[str, str]) -> None:
    script = (
        _TRACED
        + """
    answer("s", "one")
    assert athina_trace.flush(60)
    child = os.fork()
    if not child:
        held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{fd}")]
        os._exit(any("outbox" in name and not name.endswith(".acknowledged") for name in held))
    assert os.waitpid(child, 0)[1] == 0
    """
    )
    run(script, **environment)


def test_a_living_process_delivers_what_dead_ones_left_and_nothing_else(
    athina: AthinaServer, environment: dict[str, str]
) -> None:
    """A process is stopped in the middle of a request, then killed; another one, idle, is alive all the time."""
    athina.when(lambda request: request.json["user_query"] == "held", delay(100))
    idle = start(
        _TRACED
        + """
    from athina_trace._delivery import engine
    engine.RECLAIM_SECONDS = 0.2
    answer("idle", "idle")
    assert athina_trace.flush(60)
    print("ready", flush=True)
    sys.stdin.readline()
    """,
        **environment,
    )
    assert idle.stdout is not None
    assert idle.stdout.readline() == "ready\n"
    dying = start(
        _TRACED
        + """
    answer("s", "held"); answer("s", "behind")
    print("put", flush=True)
    time.sleep(60)
    """,
        **environment,
    )
    assert dying.stdout is not None
    assert dying.stdout.readline() == "put\n"
    athina.wait_for_requests(2)
    os.kill(dying.pid, signal.SIGSTOP)
    with pytest.raises(AssertionError):
        athina.wait_for_requests(3, timeout=1)  # it is alive: nobody takes over its leases, although it does nothing
    athina.clear()
    os.kill(dying.pid, signal.SIGKILL)
    athina.wait_for(3, timeout=60)
    finish_quietly(dying)
    finish(idle)
    assert questions(athina)["behind"] == 1


def finish_quietly(process: object) -> None:
    process.communicate()  # type: ignore[attr-defined]


def test_a_second_service_with_another_key_has_an_outbox_of_its_own(athina: AthinaServer, tmp_path: Path) -> None:
    script = (
        _TRACED
        + """
    for number in range(20):
        answer("s", f"{sys.argv[1]}:{number}")
    assert athina_trace.flush(60)
    """
    )
    common = {"ATHINA_BASE_URL": athina.url, "XDG_STATE_HOME": str(tmp_path)}
    services = [start(script, name, ATHINA_API_KEY=name, **common) for name in ("first", "second")]
    for service in services:
        finish(service)
    keys = {request.json["user_query"].split(":")[0]: request.headers["athina-api-key"] for request in athina.accepted}
    assert keys == {"first": "first", "second": "second"}
    assert len(list((tmp_path / "athina_trace").glob("*.db"))) == 2


def test_killed_workers_and_a_failing_server_lose_nothing(tmp_path: Path) -> None:
    figures = CrashTest(tmp_path, seconds=5, seed=7, calls=150).run()
    assert figures.returned >= 20
    assert figures.lost == 0
    assert figures.out_of_order == 0
    # Each duplicate has a reason: a lost answer, or a request in flight when its process was killed.
    assert figures.copies_unexplained <= figures.kills * 4
