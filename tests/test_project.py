"""The project: its requirements, the versions that it supports, and the shape of its code."""

import ast
import importlib
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata, requires, version
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support import shape

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "athina_trace").rglob("*.py"))
WRITTEN = {"", ".css", ".html", ".js", ".json", ".md", ".py", ".toml"}
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def supported() -> list[str]:
    classifiers = metadata("athina-trace").get_all("Classifier") or []
    return [found[1] for line in classifiers if (found := re.search(r":: Python :: (3\.\d+)$", line))]


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function's body without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def function_lengths() -> list[int]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    trees = (ast.walk(ast.parse(module.read_text())) for module in MODULES)
    return sorted(lines_of(node) for tree in trees for node in tree if isinstance(node, kinds))


def texts() -> Iterator[tuple[Path, str]]:
    """Return every file written by hand, in the project's folders and beside them."""
    folders = ("athina_trace", "examples", "tests", ".ci", ".github")
    paths = [*ROOT.glob("[!.]*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    for path in paths:
        if path.is_file() and path.suffix in WRITTEN:
            yield path, path.read_text()


def test_installing_brings_three_packages_and_nothing_else() -> None:
    required = [line for line in requires("athina-trace") or [] if "extra ==" not in line]
    assert sorted(re.split(r"[^\w-]", line)[0] for line in required) == ["httpx", "pydantic", "wrapt"]


def imported_packages() -> set[str]:
    """Return the top-level names that the package imports at run time, at the top of modules or inside functions."""
    found: set[str] = set()
    for module in MODULES:
        tree = ast.parse(module.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                node.body.clear()  # `ast.walk` comes to it later
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names - {"athina_trace"}


def test_what_is_imported_is_required() -> None:
    required = {re.split(r"[^\w-]", line)[0].lower() for line in requires("athina-trace") or []}
    # Pydantic-core is half of pydantic, which requires it in one version only.
    known = {"genai_prices": "genai-prices", "markdown_it": "markdown-it-py", "pydantic_core": "pydantic"}
    known |= {"google": "protobuf", "nats": "nats-py", "opentelemetry": "opentelemetry-proto"}
    known |= {"agents": "openai-agents", "langchain_core": "langchain-core"}
    assert {known.get(name, name) for name in imported_packages()} <= required


def test_the_supported_versions_are_one_list() -> None:
    minors = [int(name.removeprefix("3.")) for name in supported()]
    assert minors == list(range(10, 16))
    assert metadata("athina-trace")["Requires-Python"] == f">={supported()[0]}"


@pytest.mark.parametrize("setting", ["python_version", "pythonVersion"])
def test_type_checkers_look_from_the_oldest_version(setting: str) -> None:
    assert f'{setting} = "{supported()[0]}"' in PYPROJECT


def test_the_newest_version_in_the_changelog_is_the_one_that_is_installed() -> None:
    newest = re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == version("athina-trace")


def test_the_package_knows_the_version_that_is_installed() -> None:
    package = importlib.import_module("athina_trace")
    assert getattr(package, "__version__", version("athina-trace")) == version("athina-trace")


def test_the_package_is_marked_as_typed() -> None:
    assert files("athina_trace").joinpath("py.typed").is_file()


def test_no_file_reveals_whose_machine_it_was_written_on() -> None:
    home = re.compile(r"(?<![\w.])/(?:home|root|Users|work)/\w")
    telling = [path.name for path, text in texts() if home.search(text) or str(ROOT) in text]
    assert telling == []


def test_only_intended_files_are_committed() -> None:
    """Tools that are tried out leave folders, wheels and databases behind, which a careless commit takes along."""
    try:
        command = ["git", "ls-files", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no checkout of a repository")
    committed = [Path(name) for name in listed.stdout.split("\0") if name]
    top = {".ci", ".github", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"}
    assert {path.parts[0] for path in committed} <= top | {"athina_trace", "examples", "tests"}
    kinds = WRITTEN | {".jpg", ".png", ".svg", ".txt", ".typed", ".yaml"}
    assert [path for path in committed if path.suffix not in kinds] == []


def test_functions_are_short() -> None:
    lengths = function_lengths() or [0]
    assert statistics.median(lengths) <= 5
    assert lengths[math.ceil(0.9 * len(lengths)) - 1] <= 20


def test_the_figures_of_the_code_are_counted(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "_hidden.py").write_text(
        "# because\n"
        "import os  # noqa: F401\n"
        "def _once():\n    '''The one.'''\n"
        "def _twice_told():\n    '''Return two.'''\n"
        "def shown(self):\n    return _once(), self._twice_told, _twice_told()\n"
    )
    (tmp_path / "README.md").write_text("one\ntwo\n")
    helpers, functions, comments, nouns, shared, dialect, private, readme = shape.figures(
        package, tmp_path / "README.md"
    )
    assert (helpers.value, functions.value) == (125.0, 37.5)  # 1 and 3 in 8 lines
    assert (comments.value, nouns.value, shared.value) == (8, 1, 0)
    assert (dialect.value, private.value, readme.value) == (3, 1, 2)
    assert not helpers.holds
    assert readme.holds


def test_the_dialect_is_found_in_parts_of_names_and_not_in_other_words() -> None:
    assert shape.dialect("_told_by whoever goes on: understood, untold, standard") == ["told", "whoever", "goes on"]


def test_the_code_keeps_its_shape() -> None:
    over = [figure for figure in shape.figures(ROOT / "athina_trace", ROOT / "README.md") if not figure.holds]
    assert over == [], "see `make shape`"
