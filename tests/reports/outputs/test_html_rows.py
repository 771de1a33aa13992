from html.parser import HTMLParser
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.reports.outputs.html_rows import table_rows
from pycaffe_prune.reports.tables import Grid
from pycaffe_prune.shown import shown

_TEXTS = st.sampled_from(["97.50", "<b>&amp;", "\u202e\n", '"', "x" * 45, "x" * 46]) | st.text()


class _Rows(HTMLParser):
    """What a browser makes of rows: the class of each row and of its cells, and their texts."""

    def __init__(self, rows: str) -> None:
        super().__init__()
        self.rows: list[tuple[str | None, list[tuple[str | None, str]]]] = []
        self.feed(rows)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs).get("class")
        if tag == "tr":
            self.rows.append((given, []))
        else:
            assert tag == "td"
            self.rows[-1][1].append((given, ""))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "td" and data != "\n":  # the line breaks after rows are no text
            given, text = self.rows[-1][1].pop()
            self.rows[-1][1].append((given, text + data))


@given(
    lines=st.lists(st.tuples(_TEXTS, _TEXTS, _TEXTS, _TEXTS), max_size=4).map(tuple),
    first=st.sampled_from(["method", "claim"]),
)
def test_a_browser_reads_from_each_cell_its_text_as_shown(
    lines: tuple[tuple[str, ...], ...], first: str
) -> None:
    grid = Grid((first, "of", "number", "note"), lines, numbers=1)
    read = _Rows(table_rows(grid)).rows
    assert [[text for _, text in cells] for _, cells in read] == [
        [shown(text) for text in line] for line in lines
    ]
    for line, (_, cells) in zip(lines, read, strict=True):
        classes = [given for given, _ in cells]
        assert classes == [
            "number" if column == 2 else "long" if len(text) > 45 else None
            for column, text in enumerate(line)
        ]
    begins = [line[0] != above[0] for above, line in pairwise(lines)]
    assert [given == "next" for given, _ in read] == [False] * bool(lines) + [
        first == "method" and begin for begin in begins
    ]
