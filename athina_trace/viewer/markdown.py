"""Renders Markdown in answers safely: without HTML from the text, images, or referrers in links."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from athina_trace.viewer.search_text import pieces

MAX_PART = 8_000
"""Characters parsed at once: the time to parse Markdown grows faster than its length. A longer text is parsed in parts,
each of whole paragraphs; a single paragraph beyond it is shown unrendered."""
_MAX_CODE = 20_000
"""Maximum length of highlighted code."""
_LANGUAGES = frozenset({
    "bash", "c", "console", "cpp", "csharp", "css", "diff", "docker", "dockerfile", "go", "graphql", "html", "http",
    "ini", "java", "javascript", "js", "json", "jsx", "kotlin", "lua", "make", "nginx", "php", "powershell", "py",
    "python", "r", "ruby", "rust", "scala", "sh", "shell", "sql", "swift", "toml", "ts", "tsx", "typescript", "xml",
    "yaml", "yml",
})  # fmt: skip
"""Languages that are highlighted: those that occur in answers, rather than everything that Pygments supports."""
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_TASK = re.compile(r"\[([ xX])\] ")

_parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")
_formatter = HtmlFormatter(nowrap=True)


# Caches only the texts of pages, which are cut: `render.__wrapped__` renders a message of any length without caching.
@lru_cache(maxsize=500)
def render(text: str, search: str = "") -> Markup:
    """Render `text` to HTML in which nothing is executable and nothing is loaded from elsewhere.

    Args:
        text: Markdown of any length.
        search: the search terms, which are highlighted outside code.
    """
    return Markup("").join(_render_part(part, search) for part in parts(text))


def mark(text: str, search: str) -> Markup:
    """Return `text`, escaped, with matches of `search` highlighted."""
    return Markup("").join(
        Markup("<mark>{}</mark>").format(part) if is_match else escape(part) for part, is_match in pieces(text, search)
    )


def parts(text: str) -> Iterator[str]:
    """Split a text longer than `MAX_PART` between paragraphs; each block of code becomes a separate part."""
    if len(text) <= MAX_PART:
        yield text
        return
    part: list[str] = []
    length = 0
    fence = ""
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        opens = bool(found and not fence)
        closes = bool(found and fence and found[1].startswith(fence) and not line.strip().strip(fence[0]))
        ends_paragraph = not fence and not line.strip() and length > MAX_PART // 2
        if part and (opens or ends_paragraph):
            yield "".join(part)
            part, length = [], 0
        part.append(line)
        length += len(line)
        if found and opens:
            fence = found[1]
        if closes:
            yield "".join(part)
            part, length, fence = [], 0, ""
    if part:
        yield "".join(part)


def _render_part(text: str, search: str) -> Markup:
    # A part that begins with a block of code contains nothing else, and takes time linear in its length.
    if len(text) <= MAX_PART or _FENCE.match(text):
        # If the parser fails on a text, the text itself is still worth showing.
        try:
            tokens = _parser.parse(text)
            return Markup(_parser.renderer.render(_adapt(tokens, search), _parser.options, {}))  # noqa: S704 - escaped
        except (RecursionError, ValueError, IndexError):
            pass
    return Markup('<p class="plain">{}</p>').format(mark(text, search))


def _adapt(tokens: Sequence[Token], search: str) -> list[Token]:
    """Shrink headings, align cells by class, tick tasks, highlight matches, and open links without a referrer."""
    adapted: list[Token] = []
    for place, token in enumerate(tokens):
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h4"
        if token.type in ("th_open", "td_open") and (style := str(token.attrs.pop("style", ""))):
            # The content security policy forbids inline styles: browsers would ignore the alignment and log an error.
            token.attrSet("class", style.replace("text-align:", "align-"))
        if token.type == "link_open":
            token.attrSet("rel", "noopener noreferrer nofollow")
            token.attrSet("target", "_blank")
        if token.type in ("fence", "code_block"):
            adapted.append(_html(_code(token.content, token.info.strip().split(" ")[0].lower())))
            continue
        if token.type == "text" and search:
            adapted.append(_html(mark(token.content, search)))
            continue
        if token.type == "inline" and tokens[max(0, place - 2)].type == "list_item_open":
            _tick(token)
        if token.children:
            token.children = _adapt(token.children, search)
        adapted.append(token)
    return adapted


def _tick(item: Token) -> None:
    """Replace `[ ]` or `[x]` at the beginning of a list item with a box."""
    first = item.children[0] if item.children else None
    if first is not None and first.type == "text" and (found := _TASK.match(first.content)):
        first.content = first.content[found.end() :]
        done = found[1] != " "
        box = Markup('<input type="checkbox" disabled aria-label="{}"{}> ').format(
            "done" if done else "to do", Markup(" checked") if done else ""
        )
        item.children = [_html(box), *(item.children or [])]


def _code(text: str, language: str) -> Markup:
    """Return a block of code, highlighted if its language is known, with the language's name and a copy button."""
    coloured: Markup | str = text
    if language in _LANGUAGES and len(text) <= _MAX_CODE:
        coloured = Markup(highlight(text, get_lexer_by_name(language), _formatter))  # noqa: S704 - Pygments escapes
    return Markup(
        '<figure class="code"><figcaption>{}<button type="button" class="quiet copy" data-copy-code>Copy</button>'
        '</figcaption><pre tabindex="0"><code>{}</code></pre></figure>'
    ).format(language[:30] or "text", coloured)


def _html(html: Markup) -> Token:
    return Token("html_inline", "", 0, content=html)
