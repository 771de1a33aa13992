"""The rows of the page's tables: 30,000 of a result of 10,000 points, too many for a template."""

from itertools import chain

from markupsafe import Markup, escape

from pycaffe_prune.reports.tables import Grid
from pycaffe_prune.shown import shown

__all__ = ["table_rows"]

_LONG = 45
"""Signs from which on a cell may break its line."""


def table_rows(grid: Grid) -> Markup:
    """Return the ``<tr>`` of each line of a table, each text `shown` and escaped for HTML.

    The first line of each method is marked, and so are cells of numbers and of many signs.
    """
    texts = set(chain.from_iterable(grid.lines))
    escaped = {text: str(escape(shown(text))) for text in texts}  # most cells are the same few
    numbers = {text: f'<td class="number">{seen}</td>' for text, seen in escaped.items()}
    words = {
        text: f'<td class="long">{seen}</td>' if len(text) > _LONG else f"<td>{seen}</td>"
        for text, seen in escaped.items()
    }
    columns = [numbers if grid.is_number(column) else words for column in range(len(grid.heads))]
    by_method = grid.heads[:1] == ("method",)
    rows = []
    above = None
    for line in grid.lines:
        is_next = by_method and above is not None and line[0] != above
        opened = '<tr class="next">' if is_next else "<tr>"
        cells = [cell[text] for cell, text in zip(columns, line, strict=True)]
        rows.append(f"{opened}{''.join(cells)}</tr>\n")
        above = line[0]
    return Markup("".join(rows))  # noqa: S704  (every text was escaped just above)
