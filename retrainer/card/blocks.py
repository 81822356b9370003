"""What a card is made of, and the two ways to write it: Markdown, and one HTML page that loads and runs nothing."""

import base64
import html
import re
from collections.abc import Mapping, Sequence

import msgspec

from exporters.models.harmless import INERT_HTML


class Heading(msgspec.Struct, frozen=True):
    """`level`: 1 of the title."""

    text: str
    level: int = 2


class Paragraph(msgspec.Struct, frozen=True):
    """Plain text."""

    text: str


class Items(msgspec.Struct, frozen=True):
    """A list."""

    texts: Sequence[str]


class Table(msgspec.Struct, frozen=True):
    """Cells are plain text; the first column names its row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(msgspec.Struct, frozen=True):
    """A PNG, by its file's name beside the card."""

    file: str
    says: str


Block = Heading | Paragraph | Items | Table | Picture

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #1d1d1f;
  background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
th, td { border-bottom: 1px solid #d8d8dc; padding: .3em .8em; text-align: left; vertical-align: top;
  overflow-wrap: break-word; max-width: 22em }
th { font-weight: 600 }
img { max-width: 100% }
h2 { margin-top: 2em }
"""


def to_markdown(blocks: Sequence[Block]) -> str:
    """The pictures are files beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def to_html(title: str, blocks: Sequence[Block], pictures: Mapping[str, bytes]) -> str:
    """The pictures are inside. Every text is escaped, and the page's policy forbids scripts and loading."""
    body = "\n".join(_html(block, pictures) for block in blocks)
    return (
        f"{INERT_HTML}<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_plain(block.text)}"
    if isinstance(block, Paragraph):
        return _plain(block.text)
    if isinstance(block, Items):
        return "\n".join(f"* {_plain(text)}" for text in block.texts)
    if isinstance(block, Table):
        rows = [block.head, ["---"] * len(block.head), *block.rows]
        return "\n".join(
            f"| {' | '.join(_plain(cell) if n != 1 else cell for cell in row)} |" for n, row in enumerate(rows)
        )
    return f"![{_plain(block.says)}]({block.file})"


def _plain(text: str) -> str:
    """One line that Markdown takes as text: no link, no picture, no HTML of a user's words works."""
    return re.sub(r"([\\`*_\[\]<>|#!~])", r"\\\1", " ".join(text.split()))


def _html(block: Block, pictures: Mapping[str, bytes]) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Items):
        return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in block.texts)}</ul>"
    if isinstance(block, Table):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.head)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in block.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    data = base64.b64encode(pictures[block.file]).decode()
    return f'<img alt="{html.escape(block.says)}" src="data:image/png;base64,{data}">'
