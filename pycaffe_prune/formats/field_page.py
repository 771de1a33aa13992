"""The page `docs/fields.md`, made of the table of fields."""

import sys
from collections.abc import Iterator

from pycaffe_prune.formats.field_table import (
    FieldTable,
    MessageFields,
    Row,
    Status,
    Use,
    field_table,
)

__all__ = ["field_page"]

_HEAD = """\
<!-- made by `make fields` from pycaffe_prune/formats/fields.toml; do not edit -->
# Fields of Caffe's messages

What is done about each field of `caffe.proto` that a solver or a net can have. A field that would
change an answer is followed, or refused by name; none is passed over silently. The columns:

- **caffe**, **torch**: training, tests and forward passes in the two [engines](engines.md)
- **shapes**: the shapes that `inspect` and all others go by
- **channels**: what `prune units` deletes together
- **deploy**, **onnx**: `convert --to deploy` and `--to onnx`
- **features**: `caffe-prune features`
- **tests**: what a test of a trained net measures

and what stands in them:

- **yes**: honoured, the answer follows the field
- **refused**: set to a value that would change the answer, it ends the command with a sentence that
  names it
- **type**: layers of its type are refused, or named as unknown, whatever the field says (by
  **channels**: units that they read stay, and whoever asks is told)
- **–**: without effect on this answer

The numbers lead to the [reasons](#reasons). Fields that forks of Caffe added are not here: they are
[carried along](formats.md), have the meaning that `pycaffe_prune/net/fork_forms.py` gives them, or
are refused where their meaning is needed. A setting that the layer's type does not read
(`pooling_param` in a Convolution) has no effect, as in Caffe.
"""


class _Reasons:
    """Reasons by the numbers that they have on the page."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def cell(self, use: Use) -> str:
        word = {
            Status.HONOURED: "yes",
            Status.REFUSED: "**refused**",
            Status.WITHOUT_EFFECT: "–",
            Status.WITH_ITS_TYPE: "type",
        }[use.status]
        if not use.reason:
            return word
        number = self.numbers.setdefault(_sentence(use), len(self.numbers) + 1)
        return f"{word} [{number}](#r{number})"


def _sentence(use: Use) -> str:
    if use.status is not Status.REFUSED:
        return use.reason
    harmless = [value for value in use.harmless if value != "unset"]
    but = f" (harmless: {', '.join(harmless)})" if harmless else ""
    return f"{use.reason}{but}"


def field_page(table: FieldTable) -> str:
    """Return the page, Markdown."""
    reasons = _Reasons()
    parts = [_HEAD]
    for name, message in table.messages.items():
        if message.rows:
            parts.append("\n".join(_section(table, name, message, reasons)))
    parts.append("## Messages that are no settings\n")
    parts += [f"- `{name}`: {it.apart}" for name, it in table.messages.items() if it.apart]
    parts.append("\n## Reasons\n")
    parts += [
        f'- <a id="r{number}"></a>{number}: {text}' for text, number in reasons.numbers.items()
    ]
    return "\n".join(parts) + "\n"


def _section(
    table: FieldTable, name: str, message: MessageFields, reasons: _Reasons
) -> Iterator[str]:
    yield f"## {name}\n"
    if message.types:
        yield f"Of layers of the type {', '.join(sorted(message.types))}.\n"
    yield f"| field | {' | '.join(table.consumers)} |"
    yield f"|---|{'---|' * len(table.consumers)}"
    for row in message.rows:
        yield _line(table, row, reasons)
    yield ""


def _line(table: FieldTable, row: Row, reasons: _Reasons) -> str:
    fields = ", ".join(f"`{field}`" for field in row.fields)
    cells = " | ".join(reasons.cell(row.uses[consumer]) for consumer in table.consumers)
    return f"| {fields} | {cells} |"


if __name__ == "__main__":
    sys.stdout.write(field_page(field_table()))
