"""Forks: all hooks run in one order, and none of our locks stays held in a child."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import athina_trace
from athina_trace import _fork
from tests.support import processes

PACKAGE = Path(athina_trace.__file__).parent


def test_only_one_module_hooks_forks() -> None:
    hooking = [path.name for path in PACKAGE.rglob("*.py") if "os.register_at_fork(" in path.read_text()]
    assert hooking == ["_fork.py"]


def test_the_order_names_exactly_the_registered_hooks() -> None:
    registering = re.compile(r'_fork\.register\(\s*"(\w+)"')
    places = [place for path in PACKAGE.rglob("*.py") for place in registering.findall(path.read_text())]
    assert sorted(places) == sorted(_fork.PLACES)
    with pytest.raises(ValueError, match="no place 'elsewhere'"):
        _fork.register("elsewhere")


def test_hooks_are_called_in_order_even_if_one_fails() -> None:
    out, err = processes.run(
        """
        import os, sys
        from athina_trace import _fork
        def noting(*what):
            def hook():
                os.write(1, (' '.join(what) + os.linesep).encode())  # whole lines, though two processes write
                if "clock" in what: 1 / 0
            return hook
        for place in reversed(("clock", "runtime", "database")):
            moments = ("before", "after_in_parent", "after_in_child")
            _fork.register(place, **{moment: noting(moment, place) for moment in moments})
        sys.unraisablehook = lambda failed: noting("reported", type(failed.exc_value).__name__)()
        child = os.fork()
        if child == 0: os._exit(0)
        os.waitpid(child, 0)
        """
    )
    lines = out.splitlines()
    assert err == ""

    def of(moment: str) -> list[str]:
        return [line.split()[1] for line in lines if line.startswith(moment)]

    assert of("before") == of("after_in_child") == ["clock", "runtime", "database"]
    assert of("after_in_parent") == ["database", "runtime", "clock"]
    assert lines.count("reported ZeroDivisionError") == 3


def test_forks_beside_a_thread_that_makes_runtimes_never_wait_for_each_other(tmp_path: Path) -> None:
    """The thread takes the runtime's lock, then the database's: a fork has to take them in that order, too."""
    out, err = processes.run(
        """
        import os, threading, warnings
        import athina_trace as a
        warnings.simplefilter("ignore")  # since Python 3.12, of forks beside threads
        done = threading.Event()
        def configures():
            number = 0
            while not done.is_set():
                a.configure(outbox=f"{os.environ['FOLDER']}/{number % 3}.db", exit_timeout=0)
                a.log_inference(response="r")
                number += 1
        thread = threading.Thread(target=configures)
        thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(0 if len(a.log_inference(response="r")) == 36 else 1)
            assert os.waitpid(child, 0)[1] == 0
        done.set()
        thread.join()
        print(a.status().faults)
        """,
        FOLDER=str(tmp_path),
    )
    # On a busy machine, a fork may wait in vain until no transaction is under way, and its child uses memory.
    strange = [line for line in err.splitlines() if "was being written to when this process was forked" not in line]
    assert (out, strange) == ("0\n", [])


_FORKS_WHILE_A_THREAD_STARTS = """
    import os, sys, threading, warnings
    import athina_trace
    from athina_trace import _runtime
    warnings.simplefilter("ignore")  # since Python 3.12, of forks beside threads
    _runtime._START_SECONDS = float(sys.argv[1])
    lock, loading, forking = threading.Lock(), threading.Event(), threading.Event()
    def before():
        lock.acquire()
        forking.set()
    os.register_at_fork(before=before, after_in_parent=lock.release, after_in_child=lock.release)
    sys.modules["program"] = sys.modules["__main__"]
    sys.path.insert(0, os.environ["FOLDER"])
    thread = threading.Thread(target=lambda: athina_trace.log_inference(response="of the parent"))
    thread.start()
    loading.wait()
    child = os.fork()
    if child == 0:
        athina_trace.log_inference(response="of the child")
        try:
            athina_trace.configure(before_emit=None)
        except athina_trace.AthinaTraceError as error:
            print(error, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
    print(sorted(log["response"] for log in athina_trace.recent_logs()))
    """


def _fork_while_a_thread_loads(module: str, folder: Path, *, seconds: float) -> tuple[str, str]:
    """Fork while another thread makes the first log, and imports the module of a hook for it."""
    loads = "from program import forking, loading, lock\nloading.set()\nforking.wait()\n"
    (folder / "hooks.py").write_text(f"{loads}{module}\ndef hook(log):\n    return log\n")
    hook = {"ATHINA_BEFORE_EMIT": "hooks:hook", "ATHINA_HOOK_TIMEOUT": "60"}
    settings = {**hook, "ATHINA_OUTBOX": str(folder / "outbox.db")}
    return processes.run(_FORKS_WHILE_A_THREAD_STARTS, str(seconds), FOLDER=str(folder), **settings)


def test_a_fork_waits_for_a_thread_that_starts_logging(tmp_path: Path) -> None:
    """Python's own hook holds the lock of all pools from before a fork, if it is called before ours."""
    uses_a_pool = "import concurrent.futures\nconcurrent.futures.ThreadPoolExecutor(1).submit(int).result()"
    out, err = _fork_while_a_thread_loads(uses_a_pool, tmp_path, seconds=60)
    assert (out, err) == ("['of the child', 'of the parent']\n", "")


def test_a_fork_that_holds_what_a_starting_thread_waits_for_goes_on_and_its_child_does_not_log(tmp_path: Path) -> None:
    out, err = _fork_while_a_thread_loads("with lock:\n    pass", tmp_path, seconds=0.2)
    of_the_child, responses = out.splitlines()
    assert "another thread is starting it" in of_the_child
    assert responses == "['of the parent']"
    assert err.count("athina_trace: start-up (without it") == 1


def test_the_runtime_builds_all_models_for_which_pydantic_holds_a_lock(tmp_path: Path) -> None:
    """A fork beside a thread that builds a model leaves the lock held in the child, which would never end."""
    out, err = processes.run(
        """
        import athina_trace
        athina_trace.log_inference(response="r")
        from athina_trace.inference_log import InferenceLog
        from athina_trace.settings import Settings
        print(InferenceLog.__pydantic_complete__, Settings.__pydantic_complete__)
        """,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
    )
    assert (out, err) == ("True True\n", "")


def test_logs_that_wait_for_a_start_are_not_logged_by_a_child_as_well(tmp_path: Path) -> None:
    out, _ = processes.run(
        """
        import os
        import athina_trace as a
        from athina_trace import _runtime
        settings_class, _runtime._settings_class = _runtime._settings_class, lambda: 1 / 0
        a.log_inference(response="of the parent")
        child = os.fork()
        _runtime._settings_class = settings_class
        if child:
            _runtime._retry_at = float("-inf")
        a.log_inference(response="of the parent, later" if child else "of the child")
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        print(sorted(log["response"] for log in a.recent_logs()))
        """,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
    )
    assert out == "['of the child', 'of the parent', 'of the parent, later']\n"


def test_logs_of_a_pools_process_that_wait_for_a_start_are_kept_at_its_end(tmp_path: Path) -> None:
    out, _ = processes.run(
        """
        import multiprocessing
        import athina_trace as a
        from athina_trace import _runtime
        def work():
            settings_class, _runtime._settings_class = _runtime._settings_class, lambda: 1 / 0
            a.log_inference(response="of the child")
            _runtime._settings_class = settings_class
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join()
        print([log["response"] for log in a.recent_logs()])
        """,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
    )
    assert out == "['of the child']\n"
