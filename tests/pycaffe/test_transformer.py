"""A Transformer undoes what it does and leaves its arguments alone; its values are twins."""

import numpy as np
import pytest

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe.io import Transformer


def full() -> Transformer:
    transformer = Transformer({"data": [1, 3, 5, 6]})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (1, 2, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([3.0, 4.0, 5.0]))
    transformer.set_input_scale("data", 0.1)
    return transformer


def test_deprocess_undoes_preprocess() -> None:
    image = np.random.default_rng(0).random((5, 6, 3), np.float32)
    before = image.copy()
    back = full().deprocess("data", full().preprocess("data", image))
    assert np.abs(back - image).max() < 1e-6
    assert np.array_equal(image, before)


def test_nothing_set_is_nothing_done_and_the_image_stays() -> None:
    image = np.ones((5, 6, 3), np.float32)
    result = Transformer({"data": (1, 3, 5, 6)}).preprocess("data", image)
    assert np.array_equal(result, image)
    assert not np.shares_memory(result, image)


def test_a_mean_image_of_one_value_is_that_value_at_any_size() -> None:
    transformer = full()
    transformer.set_mean("data", np.full((3, 9, 9), 7.0))
    assert np.array_equal(transformer.mean["data"], np.full((3, 5, 6), 7.0))


@pytest.mark.parametrize("shape", [(2,), (2, 5, 6), (1, 3, 5, 6), ()])
def test_a_mean_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the mean of data") as raised:
        full().set_mean("data", np.ones(shape))
    assert isinstance(raised.value, PruneError)


def test_an_unknown_input_is_named() -> None:
    with pytest.raises(PruneError, match="score is not one of the net's inputs: data"):
        full().deprocess("score", np.ones(1))
