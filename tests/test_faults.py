"""Whatever fails in our code, at any time: the program's calls return and raise what they would without us."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import importlib.abc
import itertools
import logging
import math
import signal
import sys
import threading
import time
from collections import UserDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import wrapt

import athina_trace
from athina_trace import Delivered, _guard, _runtime, configure, flush, log_inference, recent_logs, status
from athina_trace._clock import clock
from athina_trace._pipeline.hooks import Notifier
from tests.conftest import KEY
from tests.support import athina_server, processes
from tests.support.athina_server import AthinaServer

if TYPE_CHECKING:
    from typing_extensions import Self

PACKAGE = str(Path(athina_trace.__file__).parent)
UNGUARDED = ("wrapper.py", "generators.py", "followed.py", "calls.py", "_guard.py")
"""The modules that are the guard themselves."""
UNTOUCHED = ("may_trace", "__del__", "_making")
"""Functions that nothing is raised out of: it "must not raise", Python prints what it raises, and Python 3.10 would end
a generator in this way without its `finally`."""


@athina_trace.athina_trace
def plain(question: str) -> str:
    return question


@athina_trace.athina_trace
def failing(question: str) -> str:
    raise LookupError(question)


@athina_trace.athina_trace
async def coroutine(question: str) -> str:
    return question


@athina_trace.athina_trace
def generator(question: str) -> Iterator[str]:
    yield question


@athina_trace.athina_trace
async def async_generator(question: str) -> AsyncIterator[str]:
    yield question


def _call_plain() -> str:
    return plain("q")


def _call_failing() -> str:
    with pytest.raises(LookupError, match="q"):
        failing("q")
    return "q"


def _call_coroutine() -> str:
    with pytest.raises(StopIteration) as stop:
        coroutine("q").send(None)  # without a loop, which has threads and clean-ups of its own
    return str(stop.value.value)


def _call_generator() -> str:
    return "".join(generator("q"))


def _call_async_generator() -> str:
    async def all_of() -> str:
        return "".join([piece async for piece in async_generator("q")])

    with pytest.raises(StopIteration) as stop:
        all_of().send(None)
    return str(stop.value.value)


@athina_trace.athina_trace
def iterator(question: str) -> Iterator[str]:
    return map(str, [question])


def _call_iterator() -> str:
    return "".join(iterator("q"))


def _block() -> str:
    with athina_trace.athina_trace(user_query="q") as log:
        log.update(response="r")
    return "q"


def _by_hand() -> str:
    reference = log_inference(response="r", external_reference_id="q")
    athina_trace.update_log(external_reference_id=reference, expected_response="e")
    athina_trace.log_feedback(reference, 1)
    return reference


def _ask_how_it_is() -> str:
    recent_logs()
    status()
    flush(0)
    athina_trace.shutdown(0)
    return "q"


class Injected:
    """Raises `error` from the n-th call of our functions inside the `with` block."""

    def __init__(self, nth: int, error: Exception) -> None:
        self.left, self.error = nth, error
        # Kept: Python 3.11 lets go of it when it raises, and may call it once more where that was in a `__del__`.
        self.profile = self._count

    def __enter__(self) -> Self:
        gc.disable()  # what is collected meanwhile may call functions of ours, and Python prints what those raise
        sys.setprofile(self.profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _count(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        del frame  # else it would look like a debugger, whose exceptions pass
        if event != "call" or not code.co_filename.startswith(PACKAGE) or code.co_name in UNTOUCHED:
            return
        if code.co_filename.endswith(UNGUARDED):
            return
        self.left -= 1
        if self.left == 0:
            raise self.error


ERRORS: tuple[Callable[[], Exception], ...] = (
    ZeroDivisionError,
    MemoryError,
    RecursionError,
    lambda: ImportError("half loaded"),
    lambda: OSError(28, "No space left on device"),
    lambda: RuntimeError("can't start new thread"),
)


@pytest.mark.parametrize(
    "call", [_call_plain, _call_failing, _call_coroutine, _call_generator, _call_async_generator, _call_iterator]
)
@pytest.mark.parametrize("first", [True, False], ids=["first log", "later log"])
def test_no_step_of_ours_can_fail_in_the_call(
    call: Callable[[], str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    monkeypatch.setenv("ATHINA_OUTBOX", ":memory:")
    # Else each of them would start a thread.
    monkeypatch.setattr("athina_trace._delivery.worker._EngineThread.start", lambda *_, **__: True)
    configure(outbox=":memory:")
    for nth in itertools.count(1):
        if first:
            _runtime._runtime = None
        _runtime._retry_at = -math.inf
        # In a context of its own: one that cannot be left any more must not surround the next.
        context = contextvars.copy_context()
        with Injected(nth, ERRORS[nth % len(ERRORS)]()) as injected:
            answer = context.run(call)
        assert answer == "q"
        if injected.left > 0:
            assert 20 < nth < 2 * status().faults
            break
    gc.collect()  # a generator that failed half-way is logged when it is collected, which must not be in another test


@pytest.mark.parametrize("call", [_block, _by_hand, _ask_how_it_is])
def test_no_step_of_the_runtime_can_fail_in_the_public_functions(
    call: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    monkeypatch.setenv("ATHINA_OUTBOX", ":memory:")
    for step in ("_make", "_environment_settings", "_settings_class", "_install", "_catch_up", "_register_exit"):
        for error in ERRORS:
            _runtime._runtime, _runtime._retry_at = None, -math.inf

            def fails(*_: Any, error: Exception = error()) -> Any:  # noqa: B008 - one for each
                raise error

            with monkeypatch.context() as broken:
                broken.setattr(_runtime, step, fails)
                assert call() == "q"
    for step in ("write", "change", "put", "flush", "status", "recent_logs", "wake"):
        for error in ERRORS:
            configure(outbox=":memory:")

            def breaks(*_: Any, error: Exception = error()) -> Any:  # noqa: B008 - one for each
                raise error

            monkeypatch.setattr(_runtime._runtime, step, breaks)
            assert call() == "q"


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user: not in the list of users, and without variables that name a folder."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize("settings", [None, {}, {"outbox": "~/outbox.db"}])
def test_without_a_home_directory_logs_are_kept_in_memory(
    athina: AthinaServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    if settings is None:
        monkeypatch.setenv("ATHINA_API_KEY", KEY)
        monkeypatch.setenv("ATHINA_BASE_URL", athina.url)
    else:
        configure(api_key=KEY, base_url=athina.url, **settings)
    assert [plain("one"), plain("two")] == ["one", "two"]
    assert status().outbox == ":memory:"
    assert flush(60)
    assert [request.json["user_query"] for request in athina.accepted] == ["one", "two"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "set ATHINA_OUTBOX" in caplog.text


def test_if_the_disk_fails_recent_logs_come_from_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    configure(outbox=str(tmp_path / "file" / "outbox.db"))
    for question in ("one", "two", "three"):
        plain(question)
    assert [log["user_query"] for log in recent_logs(2)] == ["two", "three"]
    assert [log["user_query"] for log in recent_logs()] == ["one", "two", "three"]
    assert (status().outbox, status().waiting) == (":memory:", 3)


@pytest.mark.parametrize(
    "module",
    ["pydantic", "pydantic_core", "http.client", "athina_trace.settings", "athina_trace._pipeline.runtime"],
)
def test_a_failed_import_fails_no_call(module: str, tmp_path: Path) -> None:
    out, err = processes.run(
        """
        import asyncio, sys
        sys.modules[sys.argv[1]] = None
        import athina_trace as a
        @a.athina_trace
        def answer(question): return question
        print(answer("one"), answer("two"), len(a.log_inference(response="r")))
        a.update_log(external_reference_id="id", response="s")
        a.log_feedback("id", 1)
        with a.athina_trace(user_query="q") as log: log.update(response="r")
        print(a.flush(1).paused, asyncio.run(a.aflush(1)).waiting, a.recent_logs(), a.shutdown())
        print(a.status().made, a.status().faults > 0)
        """,
        module,
        ATHINA_API_KEY=KEY,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
        ATHINA_EXIT_TIMEOUT="0",  # without that module, nothing is sent however long the end waits
    )
    if module == "http.client":  # to send is all that cannot be done
        assert out.startswith("one two 36\n")
        assert "athina_trace cannot set up sending" in err
        return
    assert out.startswith("one two 36\nathina_trace could not start: ModuleNotFoundError(")
    assert out.endswith(") 6 [] None\n6 True\n")
    assert err.count("athina_trace: start-up (without it, logs only wait in memory) failed") == 1
    assert "6 logs are lost" in err
    assert "settings" not in err.replace("athina_trace.settings", "")  # they are not to blame
    assert "Traceback" not in err


def test_a_clock_that_the_programs_test_replaces_fails_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted() -> float:
        raise StopIteration

    monkeypatch.setattr(_runtime, "_runtime", None)
    monkeypatch.setenv("ATHINA_OUTBOX", ":memory:")
    monkeypatch.setattr(_guard, "strict", False)
    with monkeypatch.context() as replaced:
        replaced.setattr(time, "monotonic", exhausted)
        assert plain("q") == "q"
        _guard.log_throttled(logging.DEBUG, "anything", "anything")
    assert [log["response"] for log in recent_logs()] == ["q"]


def test_a_failed_start_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    monkeypatch.setenv("ATHINA_OUTBOX", ":memory:")
    with monkeypatch.context() as broken:
        broken.setattr(_runtime, "_settings_class", lambda: 1 / 0)
        broken.setattr(_runtime, "_RETRY_SECONDS", 60.0)
        for question in ("first", "second"):
            assert plain(question) == question
        assert status().faults == 1  # not with each call
        assert status().paused == "athina_trace could not start: ZeroDivisionError('division by zero')"
        assert (status().made, status().waiting, status().dropped) == (2, 2, 0)
        broken.setattr(_runtime, "_MOST_AFTERWARDS", 2)
        assert plain("third") == "third"
        assert (status().made, status().waiting, status().dropped) == (3, 2, 1)
        assert not (report := flush(0))
        assert report.waiting == 2
    _runtime._retry_at = time.monotonic()
    assert plain("fourth") == "fourth"
    assert [log["user_query"] for log in recent_logs()] == ["first", "second", "fourth"]
    assert (status().made, status().waiting, status().dropped) == (4, 3, 1)
    assert status().paused == "there is no API key: set ATHINA_API_KEY"


def test_a_log_that_waits_for_a_start_has_its_own_duration_and_all_changes(
    athina: AthinaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    seconds = [0.0]
    monkeypatch.setattr(clock, "perf_ns", lambda: int(seconds[0] * 1e9))
    for name, value in {"ATHINA_API_KEY": KEY, "ATHINA_BASE_URL": athina.url}.items():
        monkeypatch.setenv(name, value)

    with monkeypatch.context() as broken:
        broken.setattr(_runtime, "_settings_class", lambda: 1 / 0)
        with athina_trace.athina_trace() as log:
            seconds[0] += 1
        log.update(user_feedback=1)
        seconds[0] = 3600
    assert flush(60)
    first, change = athina.accepted
    assert (first.json["response_time"], change.json["user_feedback"]) == (1000, 1)


@pytest.mark.parametrize("mask", ["fails:mask", "no_such_module:mask", "nonsense"])
def test_a_mask_that_cannot_be_loaded_keeps_logs_on_this_machine(
    mask: str, athina: AthinaServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "fails.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in {"ATHINA_MASK": mask, "ATHINA_API_KEY": KEY, "ATHINA_BASE_URL": athina.url}.items():
        monkeypatch.setenv(name, value)
    assert plain("q") == "q"
    assert not flush(0.1)
    assert athina.requests == []
    assert "the environment's settings are invalid: " in caplog.text


@pytest.mark.parametrize("first", ["", "a.configure(outbox=':memory:')"])
def test_a_log_made_during_the_first_log_is_logged_after_it(first: str) -> None:
    """Signal handlers and finalizers may run in the middle of the imports of the first log."""
    out, err = processes.run(
        """
        import sys
        import athina_trace as a
        @a.athina_trace
        def answer(question): return question
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name.startswith(("athina_trace", "pydantic", "sqlite3", "http")) and not busy:
                    busy.append(name)
                    answer(name)
                    a.update_log(external_reference_id="id", response="s")
                    assert a.status().made == a.flush(0).waiting == 2 * len(seen) + 2 and a.flush(0).paused
                    seen.append(busy.pop())
        seen, busy = [], []
        sys.meta_path.insert(0, Finder())
        exec(sys.argv[1])
        answer("first")
        logged = [log["user_query"] for log in a.recent_logs(1000)]
        print(len(seen) > 20, sorted(logged) == sorted([*seen, "first"]))
        print(a.status().made - 2 * len(seen), a.status().faults)
        """,
        first,
        ATHINA_OUTBOX=":memory:",
    )
    assert (out, err) == ("True True\n1 0\n", "")


class _Broken(logging.Handler):
    """A handler that sends records to a port where nobody listens."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError(record.getMessage())


@pytest.fixture
def broken_logging() -> Iterator[None]:
    """A handler of the program that raises."""
    handler = _Broken()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


@pytest.mark.usefixtures("broken_logging")
def test_a_logging_handler_that_raises_harms_neither_calls_nor_deliveries(
    athina: AthinaServer,
) -> None:
    def delivered() -> list[str]:
        assert flush(60).waiting == 0
        return sorted(request.json["user_query"] for request in athina.accepted)

    configure(api_key="key", base_url=athina.url)

    @athina_trace.athina_trace
    def typing_error(question: str) -> str:
        athina_trace.current_log().update(no_such_field=1)  # type: ignore[call-arg]
        return question

    athina.when(lambda request: request.json["user_query"] == "refused", athina_server.answer(400))
    assert [typing_error("one"), plain("refused"), plain("two")] == ["one", "refused", "two"]
    assert delivered() == ["one", "two"]
    assert plain("three") == "three"
    assert delivered() == ["one", "three", "two"]
    assert (status().refused, status().faults) == (1, 0)


def test_without_threads_calls_are_still_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(outbox=":memory:", before_emit=lambda log: log, hook_timeout=60)

    def refuses(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> str:
        with monkeypatch.context() as broken:
            broken.setattr(threading.Thread, "start", refuses)
            said = await coroutine("q") + plain("q")
        return said + await coroutine("r")  # by a thread that finds what could not be done before

    assert asyncio.run(main()) == "qqr"
    # Where the hook cannot be asked, content stays out.
    assert [log["response"] for log in recent_logs()] == ["", "", "r"]


def test_if_no_thread_can_be_started_a_hook_waits_for_an_existing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, free = threading.Event(), threading.Event()

    def hook(log: Any) -> Any:
        busy.set()
        free.wait(5)
        return log

    def refuses(_: threading.Thread) -> None:
        free.set()
        raise RuntimeError("can't start new thread")

    configure(outbox=":memory:", before_emit=hook, hook_timeout=10)
    other = threading.Thread(target=plain, args=("one",))
    other.start()
    assert busy.wait(60)
    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", refuses)
        assert plain("two") == "two"
    other.join()
    assert sorted(log["response"] for log in recent_logs()) == ["one", "two"]


def test_callbacks_without_a_thread_are_called_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    called: list[object] = []
    notifier = Notifier(called.append, None)
    first, second = (Delivered("log", name, None) for name in ("first", "second"))
    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", refuses)
        notifier.notify(Delivered, "log", "first", None)
    notifier.notify(Delivered, "log", "second", None)
    assert notifier.wait(60)
    assert called == [first, second]


def test_results_whose_class_cannot_be_looked_up_are_logged() -> None:
    class Meta(type):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(cls, other: object) -> bool:
            return cls is other

    class Odd(metaclass=Meta):
        pass

    configure(outbox=":memory:")
    odd = Odd()
    assert athina_trace.athina_trace(lambda: odd)() is odd
    assert len(recent_logs()) == 1


def test_a_name_that_is_not_text_is_not_copied() -> None:
    class Agent:
        __name__ = 7

        async def __call__(self, question: str) -> str:
            return question

    configure(outbox=":memory:")
    agent: Any = athina_trace.athina_trace(Agent())
    assert asyncio.run(agent("q")) == "q"
    assert len(recent_logs()) == 1


def test_a_fork_in_the_middle_of_the_first_log_leaves_locks_in_order(tmp_path: Path) -> None:
    out, err = processes.run(
        """
        import concurrent.futures.thread, logging, os, threading, warnings  # some of which have such hooks, too
        warnings.simplefilter("ignore")  # since Python 3.12, of forks beside threads
        begun, logged = threading.Event(), threading.Event()
        def log():
            begun.wait()
            import athina_trace
            athina_trace.log_inference(response="r")
            logged.set()
        # The hooks that the import and the log register take part in the fork's end, but not in its beginning.
        os.register_at_fork(before=lambda: (begun.set(), logged.wait(60)))
        threading.Thread(target=log).start()
        child = os.fork()
        if child == 0:
            import athina_trace
            print(len(athina_trace.log_inference(response="r")), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(logged.is_set())
        """,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
    )
    assert out == "36\nTrue\n"
    # The engine of the first log may be inside SQLite by then, and the child uses memory, as it may.
    assert all("was being written to when this process was forked" in line for line in err.splitlines()), err


def test_a_hook_that_ends_its_thread_does_not_end_the_program() -> None:
    configure(outbox=":memory:", before_emit=lambda _: sys.exit(1), hook_timeout=60)
    assert plain("q") == "q"
    assert [log["response"] for log in recent_logs()] == [""]


def _leaf() -> str:
    return "leaf"


def _failing_leaf() -> str:
    raise LookupError


def _pieces() -> Iterator[str]:
    yield "leaf"


@pytest.mark.parametrize("leaf", [_leaf, _failing_leaf, _pieces])
def test_near_the_recursion_limit_a_call_that_has_room_succeeds(leaf: Callable[[], Any]) -> None:
    configure(outbox=":memory:")

    @wrapt.decorator
    def around(wrapped: Any, _instance: object, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    def room(function: Callable[[], Any]) -> int:
        """Return how many frames deeper `function` can be called."""
        deepest = 0

        def descend(depth: int) -> None:
            nonlocal deepest
            with suppress(LookupError):
                for _ in function():
                    pass
            deepest = depth
            descend(depth + 1)

        with pytest.raises(RecursionError):
            descend(1)
        return deepest

    traced: Any = athina_trace.athina_trace(leaf)
    assert room(traced) > 100
    assert room(traced) >= room(around(leaf)) - 2


class LimitError(Exception):
    """A time limit of the program."""


def _plain_handler(_number: int, _frame: object) -> None:
    raise LimitError


def _open_handler(*_arguments: object) -> None:
    raise LimitError


def _timeout(*_arguments: object) -> None:
    raise TimeoutError  # which our own code raises and catches, too


class _Method:
    def __call__(self, _number: int, _frame: object) -> None:
        raise LimitError


@wrapt.decorator
def _through(wrapped: Any, _instance: object, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


HANDLERS: list[Any] = [
    _plain_handler,
    _open_handler,
    _timeout,
    _Method(),
    functools.partial(_open_handler, "more"),
    _through(_plain_handler),
    signal.default_int_handler,
]


@pytest.fixture(params=HANDLERS, ids=["function", "*", "timeout", "callable", "partial", "decorated", "interrupt"])
def limited(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Have a signal's handler raise; what is given lets it come, in the main thread."""
    before = signal.signal(signal.SIGALRM, request.param)
    yield lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
    signal.signal(signal.SIGALRM, before)


RAISED = (LimitError, TimeoutError, KeyboardInterrupt)


def test_a_time_limit_that_ends_while_we_mask_is_raised(limited: Callable[[], None]) -> None:
    def mask(_path: str, text: str) -> str:
        limited()
        return text

    configure(outbox=":memory:", mask=mask)
    with pytest.raises(RAISED):
        plain("q")


def test_a_time_limit_that_ends_while_we_import_is_raised(
    limited: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Limit(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
            return ModuleSpec(name, self) if name == "limited_module" else None

        def exec_module(self, module: ModuleType) -> None:
            # A frame of the import machinery, which Python takes out of the traceback.
            importlib._bootstrap._call_with_frames_removed(  # type: ignore[attr-defined]
                signal.raise_signal, signal.SIGALRM
            )

    def mask(_path: str, text: str) -> str:
        __import__("limited_module")
        return text

    monkeypatch.setattr(sys, "meta_path", [Limit(), *sys.meta_path])
    configure(outbox=":memory:", mask=mask)
    with pytest.raises(RAISED):
        plain("q")


def test_a_time_limit_that_ends_while_we_wait_for_a_hook_is_raised(limited: Callable[[], None]) -> None:
    def hook(log: Any) -> Any:
        limited()
        threading.Event().wait(0.5)
        return log

    configure(outbox=":memory:", before_emit=hook, hook_timeout=10)
    with pytest.raises(RAISED):
        plain("q")


def test_a_time_limit_that_ends_while_we_read_arguments_is_raised(limited: Callable[[], None]) -> None:
    class Slow(UserDict[str, str]):
        def __getitem__(self, key: str) -> str:
            limited()
            return super().__getitem__(key)

    configure(outbox=":memory:")
    with pytest.raises(RAISED):
        plain(Slow(a="b"))  # type: ignore[arg-type]


def test_a_time_limit_that_ends_while_we_write_is_raised(
    limited: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(outbox=str(tmp_path / "outbox.db"))
    monkeypatch.setattr("athina_trace._delivery.segment.Segment.write", lambda *_: limited())
    with pytest.raises(RAISED):
        plain("q")


@pytest.mark.parametrize("each_call", [True, False])
def test_a_time_limit_that_ends_while_we_flush_is_raised(
    limited: Callable[[], None], athina: AthinaServer, each_call: bool
) -> None:
    athina.when(lambda _: True, lambda *_: limited())
    configure(api_key=KEY, base_url=athina.url, flush_each_call=each_call, flush_timeout=60)

    def log_and_flush() -> None:
        plain("q")
        flush(60)

    with pytest.raises(RAISED):
        log_and_flush()


def test_errors_of_hooks_and_masks_do_not_reach_the_program() -> None:
    def raises(*_: object) -> Any:
        raise TimeoutError

    configure(outbox=":memory:", mask=raises, before_emit=raises, hook_timeout=60)
    assert plain("q") == "q"


def test_quitting_a_debugger_inside_our_code_ends_the_program() -> None:
    class QuitError(Exception):
        pass

    def trace(frame: FrameType, _event: str, _argument: object) -> None:
        if frame.f_code.co_name == "assemble":
            raise QuitError

    configure(outbox=":memory:")
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(QuitError):
            plain("q")
    finally:
        sys.settrace(before)
