"""The shape of a package's code in figures, each beside its limit: `python -m tests.support.shape [FOLDER]`.

The figures judge no single function. They show habits: helpers that send the reader elsewhere for three lines, code
without reasons, words that only this project uses.
"""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

DIALECT = (
    *("anew", "errand", "errands", "hasten", "hastens", "nobody", "somebody", "whoever"),
    *("mend", "mended", "mending", "mends", "said", "stand", "standing", "stands", "stood"),
    *("adopt", "adopts", "disown", "disowns", "road", "roads", "tell", "telling", "tells", "tidy", "told"),
    *("as it stands", "go on", "goes on", "going on", "went on"),
)
"""Words that this project once used in a sense of its own; a reader of the field expects others in their place.

Names that are part of the store's schema on disk are not among them.
"""

_DIALECT = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(DIALECT)})(?![A-Za-z]|-ins?\b)", re.IGNORECASE)
"""Not `\\b`: of an identifier such as `_told_by`, each part counts. A stand-in is what everybody calls so."""
_NO_REASON = re.compile(r"#\s*(?:noqa|type:|pragma|pyright:|fmt:|!)")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NO_VERB = re.compile(
    r"(?:A|All|An|Before|False|How|It|No|Nothing|Of|One|Something|The|There|These|This|Those|True|What|When|Where|Whether|Which|Who|`\w+`(?!:)|[a-z]\w*)\b"
)
"""How a function's docstring should not begin; a constructor's may explain a parameter, as in "`name`: …"."""


class Figure(NamedTuple):
    """One line of the table: `value` should be at most `limit`."""

    name: str
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the value is within its limit."""
        return self.value <= self.limit


class _Source:
    """The modules of a package, each parsed once."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self.paths = sorted(package.rglob("*.py"))
        self.texts = [path.read_text(encoding="utf-8") for path in self.paths]
        self.lines = sum(len(text.splitlines()) for text in self.texts)
        self.nodes = [node for text in self.texts for node in ast.walk(ast.parse(text))]

    def functions(self) -> list[str]:
        return [node.name for node in self.nodes if isinstance(node, _FUNCTIONS)]

    def helpers_used_once(self) -> int:
        """Count private functions whose name occurs in one other place, as a name or an attribute."""
        uses = Counter(node.id for node in self.nodes if isinstance(node, ast.Name))
        uses.update(node.attr for node in self.nodes if isinstance(node, ast.Attribute))
        return sum(uses[name] == 1 for name in {name for name in self.functions() if is_private(name)})

    def docstrings_without_verb(self) -> int:
        """Count functions whose docstring is not in the imperative; those of properties may be nouns."""
        count = 0
        for node in self.nodes:
            if isinstance(node, _FUNCTIONS):
                decorators = {ast.unparse(each) for each in node.decorator_list}
                is_noun = decorators & {"property", "cached_property", "pytest.fixture"}
                count += not is_noun and _NO_VERB.match(ast.get_docstring(node) or "") is not None
        return count

    def shared_names(self) -> int:
        """Count names of several public classes, which a reader may confuse."""
        names = Counter(node.name for node in self.nodes if isinstance(node, ast.ClassDef))
        return sum(count > 1 for name, count in names.items() if not is_private(name))

    def comments(self) -> int:
        """Count comments for readers, which those for linters are not."""
        count = 0
        for path in self.paths:
            with path.open("rb") as file:
                tokens = (token for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT)
                count += sum(not _NO_REASON.match(token.string) for token in tokens)
        return count

    def private_modules(self) -> int:
        return sum(is_private(path.stem) for path in self.package.glob("*.py"))


def is_private(name: str) -> bool:
    """Return whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def dialect(text: str) -> list[str]:
    """Return the words of `DIALECT` that occur in `text`, in lower case and in their order."""
    return [word.lower() for word in _DIALECT.findall(text)]


def figures(package: Path, readme: Path) -> list[Figure]:
    """Return the figures and their limits."""
    source = _Source(package)
    thousand = max(source.lines, 1) / 1000
    return [
        Figure("private helpers used once, in 1,000 lines", round(source.helpers_used_once() / thousand, 1), 8),
        Figure("functions in 100 lines", round(len(source.functions()) / thousand / 10, 1), 7),
        Figure("lines for each comment", round(source.lines / max(source.comments(), 1)), 40),
        Figure("docstrings of functions without a verb", source.docstrings_without_verb(), 10),
        Figure("names of several classes", source.shared_names(), 3),
        Figure("words of the old dialect", sum(len(dialect(text)) for text in source.texts), 30),
        Figure("private modules at the top level", source.private_modules(), 8),
        Figure("lines of the README", len(readme.read_text(encoding="utf-8").splitlines()), 200),
    ]


def main(arguments: Sequence[str]) -> None:
    """Print the figures of a folder, by default of the whole package."""
    package = Path(arguments[0]) if arguments else ROOT / "athina_trace"
    for figure in figures(package, ROOT / "README.md"):
        print(f"{figure.name:<44}{figure.value:>8g}  (limit {figure.limit:g}){'' if figure.holds else '  over'}")
    words = Counter(word for path in package.rglob("*.py") for word in dialect(path.read_text(encoding="utf-8")))
    if words:
        print("dialect:", ", ".join(f"{word} {count}" for word, count in words.most_common()))


if __name__ == "__main__":
    main(sys.argv[1:])
