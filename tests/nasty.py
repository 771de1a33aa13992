"""Names that strangers may give to anything, and what is seen of them."""

NASTY = {
    "[/ip]": "[/ip]",
    "[bold]a[/red]": "[bold]a[/red]",
    "\x1b]0;pwn\x07": r"\x1b]0;pwn\x07",
    "a\u202eb\u200f": r"a\u202eb\u200f",
    "a\nwritten to b\r": r"a\nwritten to b\r",
    "</script><b>": "</script><b>",
    "$\\frac{1}{ $": "$\\frac{1}{ $",
    "`a|b`": "`a|b`",
    "caf\U0010ffe9": r"caf\xe9",
    "../../up": "../../up",
    "\x85\x9b2J": r"\u0085\u009b2J",
    "{task.x} {{ 7*7 }}": "{task.x} {{ 7*7 }}",
    ":smile:": ":smile:",
}
"""By the name: how a terminal, a table or a page shows it."""


def assert_nothing_hidden(text: str) -> None:
    """Nothing acts on a terminal or turns a line round: lines of what can be seen, and no more."""
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
