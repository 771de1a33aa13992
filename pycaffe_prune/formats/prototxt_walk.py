"""Prototxts with fields that stock Caffe does not know: those are found and cut out of the text.

Forks of Caffe add fields, layer types of the V1 form and values of enums. Protobuf's parser stops
at the first of them; this walk goes along the schema, takes out what the schema does not know, and
tells where each piece stood. What it leaves is for protobuf's parser to judge.
"""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pycaffe_prune.formats.text_bytes import text_of

__all__ = ["Piece", "cut_unknown"]

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<word>[\w+\-.]+)
    |(?P<mark>.)""",
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">", "[": "]"}
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|\d+)$")
_ESCAPES = re.compile(r"\\\\|(?:\\(?:[0-3]?[0-7]{1,2}|[xX][0-9a-fA-F]{1,2}))+")
_OCTAL_OR_HEX = re.compile(r"\\(?:([0-3]?[0-7]{1,2})|[xX]([0-9a-fA-F]{1,2}))")

Path = tuple[tuple[str, int], ...]
"""Names of fields from the outermost message on, each with its place among those of the name."""


@dataclass(frozen=True)
class Piece:
    """A field that the schema does not know, as the text has it."""

    path: Path
    """The message that it stands in."""
    text: str
    line: int
    """Of the file, counted from 1."""


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


class _MalformedError(Exception):
    """The text does not follow protobuf's grammar; its own parser says where and why."""


def cut_unknown(text: str, message: Any) -> tuple[str, list[Piece]]:
    """Return ``text`` without the fields that ``message`` does not know, and these fields.

    What is cut out leaves blanks, so that lines and columns stay those of the file. Cut are: a
    field of an unknown name; a value that an enum does not have; a block where the schema has a
    plain value, and the reverse; a field that may stand once, from its second time on. Escapes in
    strings that stand for bytes that are not UTF-8 are written out as `text_bytes` has them.
    Nothing is cut where the text breaks protobuf's grammar.
    """
    walk = _Walk(text)
    try:
        walk.fields(message, (), "")
    except _MalformedError:
        return text, []
    return walk.rest(), walk.pieces


class _Walk:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0
        self._cuts: list[tuple[int, int, str]] = []
        self.pieces: list[Piece] = []

    def rest(self) -> str:
        """The text with the cuts made."""
        parts, last = [], 0
        for start, end, instead in sorted(self._cuts):
            parts += [self._text[last:start], instead]
            last = end
        return "".join([*parts, self._text[last:]])

    def _peek(self) -> str:
        return self._tokens[self._at].text

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        if token.kind == "end":
            raise _MalformedError
        self._at += 1
        return token

    def _accept(self, *marks: str) -> bool:
        token = self._tokens[self._at]
        found = token.kind == "mark" and token.text in marks
        self._at += found
        return found

    def fields(self, message: Any, path: Path, closing: str) -> None:
        """Walk the fields of one message up to its ``closing`` mark ("": the end of the text)."""
        seen: Counter[str] = Counter()
        while not (self._accept(closing) if closing else self._tokens[self._at].kind == "end"):
            name = self._next()
            if name.kind != "word":
                raise _MalformedError
            known = message.fields_by_name.get(name.text)
            self._accept(":")
            if known is None or not self._fits(known, seen[name.text]):
                self._skip_value()
                self._cut(name.start, path)
            else:
                self._known_value(known, path, seen)
            self._accept(",", ";")

    def _cut(self, start: int, path: Path) -> None:
        end = self._tokens[self._at - 1].end
        line = self._text.count("\n", 0, start) + 1
        self.pieces.append(Piece(path, _dedented(self._text[start:end]), line))
        if self._peek() in (",", ";"):
            end = self._tokens[self._at].end
        self._cuts.append((start, end, re.sub(r"[^\n]", " ", self._text[start:end])))

    def _fits(self, known: Any, before: int) -> bool:
        """Whether the value that comes next can be the field's."""
        if before and not is_repeated(known):
            return False
        first = self._at + (self._peek() == "[")  # a list's first value stands for all
        token = self._tokens[first]
        if (token.text in ("{", "<")) != (known.message_type is not None):
            return token.text == "]"
        if known.enum_type is None or token.kind != "word":
            return True
        return bool(_INTEGER.match(token.text)) or token.text in known.enum_type.values_by_name

    def _known_value(self, known: Any, path: Path, seen: Counter[str]) -> None:
        if known.message_type is None:
            seen[known.name] += 1
            start = self._at
            self._skip_value()
            for token in self._tokens[start : self._at]:
                if known.type == known.TYPE_STRING and token.kind == "string":
                    self._write_out(token)
            return
        in_list = self._accept("[")
        while True:
            closing = _CLOSING.get(self._next().text)
            if closing is None:
                raise _MalformedError
            place = (known.name, seen[known.name])
            seen[known.name] += 1
            self.fields(known.message_type, (*path, place), closing)
            if not in_list or self._accept("]"):
                return
            if not self._accept(","):
                raise _MalformedError

    def _write_out(self, token: _Token) -> None:
        """Put characters for escapes that stand for bytes that are not UTF-8."""
        written = _ESCAPES.sub(_decoded, token.text)
        if written != token.text:
            self._cuts.append((token.start, token.end, written))

    def _skip_value(self) -> None:
        token = self._next()
        if token.kind == "string":
            while self._tokens[self._at].kind == "string":
                self._at += 1
        elif token.text in _CLOSING:
            open_marks = [token.text]
            while open_marks:
                token = self._next()
                if token.kind != "mark":
                    continue
                if token.text in _CLOSING:
                    open_marks.append(token.text)
                elif token.text == _CLOSING[open_marks[-1]]:
                    open_marks.pop()
        elif token.kind != "word":
            raise _MalformedError
        elif token.text == "-":
            self._next()


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        if found.lastgroup:
            yield _Token(found.lastgroup, found[0], found.start(), found.end())
    yield _Token("end", "", len(text), len(text))


def is_repeated(known: Any) -> bool:
    """Tell whether a message may have the field several times."""
    if hasattr(known, "is_repeated"):
        return bool(known.is_repeated)
    return bool(known.label == known.LABEL_REPEATED)


def _decoded(found: re.Match[str]) -> str:
    data = bytes(
        int(octal, 8) if octal else int(hexadecimal, 16)
        for octal, hexadecimal in _OCTAL_OR_HEX.findall(found[0])
    )
    try:
        data.decode()
    except UnicodeDecodeError:
        return text_of(data)
    return found[0]


def _dedented(text: str) -> str:
    first, *others = text.splitlines(keepends=True)
    return first + textwrap.dedent("".join(others))
