from hypothesis import example, given
from hypothesis import strategies as st

from pycaffe_prune.formats.text_bytes import MARKS, bytes_of, text_of

pieces = st.sampled_from([b"\xe9", b"\xd6\xd0", *MARKS, "\U0010ffe9".encode(), "ü".encode()])


@given(st.binary() | st.lists(pieces).map(b"".join))
@example("a character of the private range: \U0010ff80".encode())
def test_any_bytes_come_back_and_are_text_for_protobuf(data: bytes) -> None:
    text = text_of(data)
    text.encode()  # no surrogates
    assert bytes_of(text) == data


@given(st.binary(), st.binary())
def test_other_bytes_are_another_name(one: bytes, other: bytes) -> None:
    assert (text_of(one) == text_of(other)) == (one == other)


@given(st.text(st.characters(max_codepoint=0x10FEFF, exclude_categories=["Cs"])))
def test_utf8_text_stays_as_it_is(text: str) -> None:
    assert text_of(text.encode()) == text
    assert not any(mark in text.encode() for mark in MARKS)
