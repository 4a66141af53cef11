"""Forks: every hook in one order, and nothing of ours is left locked in a child."""

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


def test_the_order_names_who_registers_and_nobody_else() -> None:
    registering = re.compile(r'_fork\.register\(\s*"(\w+)"')
    places = [place for path in PACKAGE.rglob("*.py") for place in registering.findall(path.read_text())]
    assert sorted(places) == sorted(_fork.PLACES)
    with pytest.raises(ValueError, match="no place 'elsewhere'"):
        _fork.register("elsewhere")


def test_hooks_are_called_in_order_and_none_is_left_out_for_another_that_fails() -> None:
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
