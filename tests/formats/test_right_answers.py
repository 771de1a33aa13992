"""Right answers as text: read(write(x)) == x, and nothing else is read."""

import base64
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.right_answers import MOST_IMAGES, pack_answers, unpack_answers

ANSWERS = arrays(np.bool_, st.integers(1, 40))


@given(right=ANSWERS)
def test_what_is_written_is_read(right):
    found = unpack_answers(pack_answers(right), len(right))
    assert found.dtype == np.bool_
    assert (found == right).all()


@given(right=ANSWERS, images=st.integers(1, 48))
def test_answers_of_another_number_of_images_are_not_those_of_fewer_or_more(right, images):
    text = pack_answers(right)
    if -(-images // 8) != -(-len(right) // 8) or right[images:].any():
        with pytest.raises(FormatError, match=f"not those of {images:,} images"):
            unpack_answers(text, images)
    else:  # as many bytes: only the count of right ones can tell, and stays
        assert unpack_answers(text, images).sum() == right.sum()


@given(right=arrays(np.bool_, 300), place=st.integers(0, 10_000), by=st.integers(1, 255))
def test_a_changed_byte_never_gives_other_answers(right, place, by):
    """The checksum of zlib sees it; only bits that mean nothing may change unseen."""
    data = bytearray(base64.b64decode(pack_answers(right)))
    data[place % len(data)] ^= by
    try:
        found = unpack_answers(base64.b64encode(data).decode(), 300)
    except FormatError as error:
        assert "right answers are" in str(error)  # noqa: PT017
    else:
        assert (found == right).all()


@pytest.mark.parametrize("text", ["", "?", "QUJD", "ÄÖ", "eJw", "A" * 10_000])
def test_text_that_is_none_is_refused(text):
    with pytest.raises(FormatError, match="right answers are"):
        unpack_answers(text, 8)


def test_cut_off_and_prolonged_text_is_refused():
    data = base64.b64decode(pack_answers(np.arange(100) % 7 == 0))
    for wrong in (data[:-1], data[:-4], data + b"x"):
        with pytest.raises(FormatError, match="cut off, or too long"):
            unpack_answers(base64.b64encode(wrong).decode(), 100)


def test_a_text_that_unpacks_to_far_more_costs_no_memory():
    bomb = base64.b64encode(zlib.compress(bytes(1 << 26), 9)).decode()
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="not those of 10,000 images"):
            unpack_answers(bomb, 10_000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("images", [0, -1, MOST_IMAGES + 1, 1 << 62])
def test_numbers_of_images_that_no_line_holds_are_refused(images):
    with pytest.raises(FormatError, match="cannot be kept"):
        unpack_answers(pack_answers(np.ones(8, bool)), images)


def test_most_images_at_random_fit_a_line_of_a_log():
    right = np.random.default_rng(1).random(MOST_IMAGES) < 0.5
    assert len(pack_answers(right)) < 1 << 20
