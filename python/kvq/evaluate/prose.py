# SPDX-License-Identifier: Apache-2.0
"""Real prose to measure on: the Debian Administrator's Handbook (Debian package debian-handbook) as plain text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from kvq.errors import FailedPrecondition

HANDBOOK = Path("/usr/share/doc/debian-handbook/html/en-US")
_BLOCKS = {"p", "li", "dt", "dd", "pre", "h1", "h2", "h3", "h4", "tr", "div"}
_VOID = {"br", "hr", "img", "meta", "link", "input", "col"}


class _Text(HTMLParser):
    """Collects the prose of a page's body without listings, its banner, tables of contents and links to other pages."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = [""]
        self.next_page: str | None = None
        self._open: list[bool] = []  # per open element: whether it is left out

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") == "next":
            self.next_page = values.get("href")
        if tag in _VOID:
            return
        named = values.get("id") == "banner" or values.get("class") in ("docnav", "toc")
        self._open.append(named or tag in ("head", "script", "style", "pre"))
        if tag in _BLOCKS:
            self.blocks.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "link":
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID and self._open:
            self._open.pop()
        if tag in _BLOCKS:
            self.blocks.append("")

    def handle_data(self, data: str) -> None:
        if not any(self._open):
            self.blocks[-1] += data


def handbook(folder: Path = HANDBOOK) -> str:
    """The whole book in reading order, an empty line between paragraphs."""
    name: str | None = "index.html"
    seen: set[str] = set()
    paragraphs: list[str] = []
    while name and name not in seen:
        page = folder / name
        if not page.is_file():
            raise FailedPrecondition(f"{page} is not there: install the Debian package debian-handbook")
        seen.add(name)
        parser = _Text()
        parser.feed(page.read_text(encoding="utf-8"))
        paragraphs += [line for block in parser.blocks if (line := " ".join(block.split()))]
        name = parser.next_page
    return "\n\n".join(paragraphs)
