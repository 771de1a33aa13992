"""What cannot be seen is shown by its code; what can be is as it was."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.formats.text_bytes import text_of
from pycaffe_prune.shown import shown
from tests.nasty import NASTY


@pytest.mark.parametrize("name", NASTY)
def test_strange_names_are_seen(name: str) -> None:
    assert shown(name) == NASTY[name]


@settings(max_examples=50)
@given(st.text(st.characters(), max_size=20))
def test_all_that_is_shown_can_be_seen_and_printed(text: str) -> None:
    seen = shown(text)
    assert seen.encode().decode() == seen
    assert shown(seen) == seen
    assert not set(seen) & set("\x00\x1b\n\r\t\u202e\u2028")


@pytest.mark.parametrize("text", ["ip1", "conv1/3x3_reduce", "Größe 2 × 3", "名前", "e\u0301"])
def test_what_can_be_seen_is_as_it_was(text: str) -> None:
    assert shown(text) == text


@settings(max_examples=50)
@given(st.binary(min_size=1, max_size=8))
def test_bytes_that_are_not_utf_8_are_seen_alike_from_files_and_from_the_command_line(
    data: bytes,
) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        assert shown(text_of(data)) == shown(data.decode("utf-8", "surrogateescape"))
        assert shown(text_of(b"\xe9")) == r"\xe9"
