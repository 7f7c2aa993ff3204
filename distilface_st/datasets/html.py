"""What a page of HTML says: its headings, each with the paragraphs below it. Scripts, styles and menus say nothing."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_SILENT = frozenset(
    ("script", "style", "template", "noscript", "svg", "math", "nav", "head", "button", "select", "textarea", "iframe")
)
_WITHIN_A_LINE = frozenset(
    """a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark q rp rt ruby s samp small
span strike strong sub sup time tt u var wbr""".split()
)


def html_sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each heading with the paragraphs up to the next one; what comes before the first has the page's title.

    Example:
        >>> list(html_sections("<title>A</title><body>It is <b>one</b>.<h2>B</h2><p>Two.<script>3</script><p>Four."))
        [('A', ['It is one.']), ('B', ['Two.', 'Four.'])]
    """
    page = _Page()
    page.feed(text)
    page.close()
    page.end_block()
    yield from ((" ".join(heading), paragraphs) for heading, paragraphs in page.sections if paragraphs)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.sections: list[tuple[list[str], list[str]]] = [([], [])]
        self.block: list[str] = []
        self.silent: list[str] = []
        self.in_heading = self.in_title = False

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and "svg" not in self.silent:
            self.in_title = not self.sections[0][0]
        elif tag == "body":
            self.silent.clear()  # a head may be left unclosed
        elif tag == "main" or ("role", "main") in attrs:
            self.block.clear()
            del self.sections[1:], self.sections[0][1][:], self.silent[:]  # menus came before
        elif tag in _SILENT or ("class", "headerlink") in attrs:
            self.silent.append(tag)
        elif not self.silent:
            self._end_line(tag)
            if tag in _HEADINGS:
                self.sections.append(([], []))
                self.in_heading = True

    @override
    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self.in_title = False
        elif tag in self.silent:
            del self.silent[self.silent.index(tag) :]
        elif not self.silent:
            self._end_line(tag)
            if tag in _HEADINGS:
                self.in_heading = False

    @override
    def handle_data(self, data: str) -> None:
        if self.in_title:
            self.sections[0][0].extend(data.split())
        elif not self.silent:
            self.block.append(data)

    def _end_line(self, tag: str) -> None:
        if tag not in _WITHIN_A_LINE:
            self.end_block()

    def end_block(self) -> None:
        """What was said since the last block began, as a paragraph or as the heading."""
        words = "".join(self.block).split()
        self.block.clear()
        if words:
            heading, paragraphs = self.sections[-1]
            if self.in_heading:
                heading.extend(words)
            else:
                paragraphs.append(" ".join(words))
