"""What the page shows, as HTML: every text is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unsee.app.jobs import News
from unsee.app.studio import Pair
from unsee.report.grid import embedded

LABELS = {"synonyms": "Other names", "keep": "What must stay", "anchor": "Drawn in its place", "pictures": "Pictures"}
"""The page's labels for arguments that library errors and notes name in backquotes."""
CSS = Path(__file__).with_name("style.css").read_text(encoding="utf-8")


def slide(pair: Pair, after: str) -> str:
    """Two pictures over each other; a range input, which takes mouse, touch and keys, moves the line between them."""
    first, second = (embedded(picture) for picture in pair)
    move = "this.parentNode.style.setProperty('--at', this.value + '%')"
    return (
        f'<figure class="slide"><div>{_image(second, after)}</div><div class="over">{_image(first, "before")}</div>'
        "<i></i>"
        f'<input type="range" min="0" max="100" value="50" aria-label="before on the left, {after} on the right"'
        f' oninput="{move}"></figure><p>left: before; right: {after}</p>'
    )


def _text(text: str) -> str:
    """Text, escaped, with the page's own names for arguments."""
    return html.escape(re.sub(r"`([^`]+)`", lambda match: LABELS.get(match[1], match[0]), text))


def _image(picture: Mapping[str, Any], what: str) -> str:
    size = f'width="{picture["width"]}" height="{picture["height"]}"'
    return f'<img src="data:image/webp;base64,{picture["data"]}" {size} alt="{what}">'


def rows(lines: list[tuple[str, str]]) -> str:
    """Names and texts as a table."""
    cells = (f"<tr><td>{html.escape(name)}</td><td>{_text(text)}</td></tr>" for name, text in lines)
    return f"<table>{''.join(cells)}</table>"


def problem(error: object) -> str:
    """A line about what cannot be done."""
    return f'<p role="alert"><b>{_text(str(error))}</b></p>'


def told(news: News) -> str:
    """How far work is, or why it ended."""
    if news.problem:
        return problem(news.problem)
    if news.total < 2:
        return f"<p>{html.escape(news.stage)} ...</p>"
    return (
        f"<p>{html.escape(news.stage)} {news.done} of {news.total}</p>"
        f'<progress max="{news.total}" value="{news.done}" aria-label="{html.escape(news.stage)}"></progress>'
    )


def framed(page: str) -> str:
    """A run's page inside another one: it may run no script, and reaches nothing around it."""
    return f'<iframe class="report" title="report" sandbox="" srcdoc="{html.escape(page)}"></iframe>' if page else ""
