import gc

import pytest

from pycaffe_prune.collector import without_collector


def test_the_collector_rests_and_is_on_again_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), without_collector():
        _ = 1 / gc.isenabled()  # False divides by zero
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with without_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
