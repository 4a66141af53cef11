"""The documentation is true: its code runs, its links resolve, its tables are complete."""

from __future__ import annotations

import inspect
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from importlib.metadata import entry_points, metadata
from pathlib import Path
from types import FrameType
from typing import Any, ForwardRef

import pytest
from openai import OpenAI

import athina_trace
from athina_trace import Settings, configure, instrument_openai, uninstrument_openai
from athina_trace.cli.main import parse
from athina_trace.errors import AthinaTraceError
from athina_trace.schema import LogFields
from athina_trace.settings import VARIABLES
from athina_trace.testing import captured_logs
from standin_openai import StandIn
from tests.support import shape

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "examples/README.md",
    "athina_trace/REFERENCE.md",
    "athina_trace/_delivery/README.md",
    "athina_trace/relay/README.md",
    "examples/fleet/README.md",
    "athina_trace/gateway/README.md",
    "athina_trace/integrations/README.md",
    "tests/benchmarks/README.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
)
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
REFERENCE = TEXTS["athina_trace/REFERENCE.md"]
HOME = next(url for label, url in (line.split(", ") for line in metadata("athina-trace").get_all("Project-URL") or []))


def blocks(page: str, language: str) -> Iterator[str]:
    """Return the code blocks of a page, each after as many empty lines as precede it on the page."""
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", TEXTS[page], re.MULTILINE | re.DOTALL):
        yield "\n" * TEXTS[page][: found.start(1)].count("\n") + found[1]


@pytest.fixture
def _openai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the stand-in in OpenAI's place, and restore its client after the test."""
    with StandIn(latency=0) as server, warnings.catch_warnings():
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        # OpenAI has shut its Assistants API down; Azure and compatible servers still have it.
        warnings.filterwarnings("ignore", "(The Assistants API is )?deprecated", DeprecationWarning)
        yield
        uninstrument_openai()


@pytest.fixture
def _signals() -> Iterator[None]:
    """Restore the handler of SIGTERM after the test."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("_openai", "_signals")
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    with captured_logs() as logs, ExitStack() as stack:
        # A page does not say that its client is to be closed; left to the garbage collector, its sockets would warn.
        stack.callback(lambda: "client" in names and names["client"].close())
        for block in blocks(page, "python"):
            exec(compile(block, ROOT / page, "exec"), names)  # noqa: S102 - it is ours
    if page == "README.md":
        first = logs.wire[0]
        assert (first["session_id"], first["customer_id"]) == ("conversation-17", "disney-usa-2314832")
        assert first["user_query"] == "Can I return my parcel?"
        assert first["language_model_id"].startswith("gpt-4.1-mini")
        decorated = logs.assert_logged(user_query="Where is my parcel?", session_id="thread-17")
        assert decorated.response == "It reaches you tomorrow by 14:00."
        assert decorated.customer_id == "disney-usa-2314832"
        assert decorated.language_model_id == "gpt-4o"
        logs.assert_logged(session_id="thread-18", customer_user_id="michaelmouse@gmail.com")
        logs.assert_logged(session_id="thread-19", customer_id="acme-7")


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shell = [line.partition("#")[0] for block in blocks(page, "shell") for line in block.splitlines()]
    for command in [*shell, *re.findall(r"`((?:make|athina-trace) [^`…]+)`", TEXTS[page])]:
        program, *arguments = shlex.split(command) or [""]
        if program == "make":
            assert targets.issuperset(word for word in arguments if "=" not in word), command
        elif program == "athina-trace":
            parse(arguments)  # exits where it does not know them


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def internal_links(page: str) -> Iterator[tuple[Path, str]]:
    """(file, anchor) of each link of a page into this project, relative or by its address on the project's home."""
    inline, defined = r"\]\(([^)\s]+)\)", r"^\[[^\]]+\]: (\S+)$"
    raw = HOME.replace("github.com", "raw.githubusercontent.com")
    ours = re.compile(f"{re.escape(HOME)}/blob/main/|{re.escape(raw)}/main/")
    for link in re.findall(f"{inline}|{defined}", TEXTS[page], re.MULTILINE):
        target, _, anchor = "".join(link).partition("#")
        if ours.match(target):
            yield ROOT / ours.sub("", target), anchor
        elif "://" not in target and not target.startswith("mailto:"):
            yield (ROOT / page).parent / target if target else ROOT / page, anchor


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_resolve(page: str) -> None:
    for path, anchor in internal_links(page):
        assert path.exists(), path
        assert not anchor or anchor in anchors(path.read_text()), (path, anchor)


def test_the_tests_that_show_a_guarantee_exist() -> None:
    named = set(re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)`", TEXTS["athina_trace/_delivery/README.md"]))
    assert named
    assert named <= {path.name for folder in ("delivery", "production") for path in (ROOT / "tests" / folder).iterdir()}


@pytest.mark.usefixtures("_openai")
def test_the_path_of_a_log_is_as_documented(tmp_path: Path) -> None:
    (block,) = blocks(".github/CONTRIBUTING.md", "path")
    decorated, instrumented, both = (
        re.findall(r"(\w+)\.(?:\w+\.)*(\w+)", each) for each in re.split(r"\n(?=\w)", block.strip())
    )
    configure(outbox=str(tmp_path / "outbox.db"), api_key=None)
    instrument_openai()

    @athina_trace.athina_trace
    def answer(question: str) -> str:
        return f"{question}!"

    def ask() -> object:
        return client.responses.create(model="gpt-4.1-mini", input="Where?")

    with OpenAI() as client:
        for call, path in ((lambda: answer("Where?"), decorated), (ask, instrumented)):
            passed = iter(functions_of(call))
            assert [step for step in path + both if step not in passed] == []


def functions_of(call: Callable[[], object]) -> list[tuple[str, str]]:
    """Return the module and name of each Python function that runs for a call, in order."""
    names: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            names.append((frame.f_globals.get("__name__", "").rpartition(".")[2], frame.f_code.co_name))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return names


def test_the_readme_can_be_read_on_the_package_index() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", TEXTS["README.md"], re.MULTILINE)
    assert [target for pair in targets for target in pair if target and not target.startswith("https://")] == []
    assert len([path for path, _ in internal_links("README.md") if path.suffix == ".png"]) == 2


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set[str](), ["README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        linked = {str(path.resolve().relative_to(ROOT)) for path, _ in internal_links(page)}
        waiting += linked.intersection(PAGES) - reached
    assert reached == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_in_plain_words(page: str) -> None:
    assert shape.dialect(TEXTS[page]) == []


def settings_table() -> str:
    """Return the table of settings that the reference must contain."""
    defaults = Settings()
    return "\n".join(
        f"| `{VARIABLES[name]}` | `{name}` | {_shown(getattr(defaults, name))} | {info.description} |"
        for name, info in Settings.model_fields.items()
    )


def _shown(value: object) -> str:
    return "" if value in (None, {}, (), frozenset()) else f"`{value}`"


def test_every_setting_is_documented() -> None:
    assert settings_table() in REFERENCE, f"put this into the reference:\n{settings_table()}"


def test_every_field_is_documented_with_its_type() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", REFERENCE.partition("## The fields")[2], re.MULTILINE))
    fields = {name: hint for name, hint in LogFields.__annotations__.items() if isinstance(hint, ForwardRef)}
    assert len(fields) == len(LogFields.__annotations__)
    types = {name: hint.__forward_arg__ for name, hint in fields.items()}
    assert types.items() <= {name: kind.replace("\\|", "|") for name, kind in rows.items()}.items()


def call_of(module: str, name: str) -> str:
    """Return a function's parameters and their defaults; `...` for those of the standard library."""
    subject = getattr(import_module(module), name)
    if isinstance(subject, type) and not any("__init__" in vars(base) for base in subject.__mro__ if _is_ours(base)):
        return f"{name}(...)"
    found = inspect.signature(subject)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in found.parameters.values()]
    return f"{name}{found.replace(parameters=bare, return_annotation=inspect.Signature.empty)}"


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("athina_trace.")


RECORDS = {"Delivered", "FlushReport", "InferenceLog", "LogDraft", "Refused", "Settings", "Status"}
ERRORS = {name for name in athina_trace.__all__ if name.endswith("Error")}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *(("athina_trace", name) for name in sorted({*athina_trace.__all__} - RECORDS - ERRORS)),
        ("athina_trace.log_context", "LogContextFilter"),
        ("athina_trace.log_context", "add_log_context"),
        ("athina_trace.log_context", "log_context"),
        ("athina_trace.testing", "captured_logs"),
        ("athina_trace.web", "ASGIMiddleware"),
        ("athina_trace.web", "WSGIMiddleware"),
    ],
)
def test_every_function_is_documented_with_its_parameters(module: str, name: str) -> None:
    place = "" if module == "athina_trace" else f"{module}."
    assert f"| `{place}{call_of(module, name)}` |" in REFERENCE


def test_every_record_is_documented_with_its_fields() -> None:
    for name in RECORDS:
        assert f"`{name}`" in REFERENCE
    for name in ("Delivered", "FlushReport", "Refused", "Status"):
        (row,) = re.findall(rf"^\| `{name}`.*$", REFERENCE, re.MULTILINE)
        for field in inspect.signature(getattr(athina_trace, name)).parameters:
            assert f"`{field}`" in row, (name, field)


def test_every_exception_is_documented_with_what_it_also_is() -> None:
    rows = dict(re.findall(r"^\| `(\w+Error)` \| `(\w+)` \|", REFERENCE, re.MULTILINE))
    assert rows.keys() == ERRORS
    for name, other in rows.items():
        bases = {base.__name__ for base in getattr(athina_trace, name).__mro__}
        assert {"AthinaTraceError", other} <= bases | {AthinaTraceError.__name__}
        assert other in bases


def test_the_deprecation_policy_names_every_fixture() -> None:
    policy = TEXTS["CHANGELOG.md"].partition("## Deprecation policy")[2].partition("\n## ")[0]
    plugins = [point.load() for point in entry_points(group="pytest11") if point.name.startswith("athina_trace")]
    fixtures = {name for plugin in plugins for name, value in vars(plugin).items() if _is_fixture(value)}
    assert fixtures == set(re.findall(r"`((?:athina|local)_\w+)`", policy)) - {"athina_trace"}


def _is_fixture(value: object) -> bool:
    return type(value).__name__ == "FixtureFunctionDefinition"
