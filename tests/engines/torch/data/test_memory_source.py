import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pycaffe_prune.engines.torch.data.memory_source import (
    DummySource,
    InputSource,
    MemorySource,
)
from pycaffe_prune.errors import DataError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from tests.engines.torch.data.datums import batches

CPU = torch.device("cpu")


def layer_of(kind: str, told: str) -> LayerParameter:
    text = f'name: "data" type: "{kind}" top: "data" top: "label" {told}'
    return text_format.Parse(text, LayerParameter())


INPUT = layer_of("Input", "input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } }")


def test_what_is_written_into_an_input_stays_as_in_pycaffe() -> None:
    source = InputSource(INPUT, CPU)
    assert source.shapes == ((2, 3), (2,))
    assert not any(top.any() for top in source.next())
    source.next()[0].numpy()[...] = 4
    for _ in range(2):
        data, label = source.next()
        assert data.eq(4).all()
        assert not label.any()


def test_an_input_without_a_shape_is_refused() -> None:
    with pytest.raises(DataError, match="does not tell the shape"):
        InputSource(layer_of("Input", ""), CPU)


MEMORY = layer_of(
    "MemoryData", "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 }"
)
IMAGES, LABELS = np.arange(18, dtype=np.float32).reshape(6, 1, 1, 3), np.arange(6, dtype=np.float32)


def test_memory_is_gone_through_again_and_again() -> None:
    source = MemorySource(MEMORY, CPU)
    source.reset(IMAGES, LABELS)
    source.seek(1)
    _, labels = batches(source, 4)
    assert np.concatenate(labels).tolist() == [2, 3, 4, 5, 0, 1, 2, 3]
    source.reset(IMAGES[:2], LABELS[:2] + 7)
    assert [top.tolist() for top in source.next()] == [IMAGES[:2].tolist(), [7, 8]]


def test_memory_that_does_not_fit_is_refused() -> None:
    source = MemorySource(MEMORY, CPU)
    with pytest.raises(DataError, match="has no data; call the net's set_input_arrays"):
        source.next()
    for images in (IMAGES[:3], IMAGES[:0], IMAGES.reshape(6, 3, 1, 1), IMAGES.reshape(-1)):
        with pytest.raises(DataError, match="its batches are 2x1x1x3, the data are"):
            source.reset(images, LABELS)
    with pytest.raises(DataError, match="6 images came with 5 labels"):
        source.reset(IMAGES, LABELS[:5])


def test_memory_without_sizes_is_refused() -> None:
    with pytest.raises(SurgeryError, match="has no channels"):
        MemorySource(layer_of("MemoryData", "memory_data_param { batch_size: 2 }"), CPU)


def dummy(fillers: str, seed: int = 1) -> DummySource:
    told = f"dummy_data_param {{ shape {{ dim: 50 dim: 2 }} shape {{ dim: 4 }} {fillers} }}"
    return DummySource(layer_of("DummyData", told), CPU, seed)


def test_constants_are_filled_once_and_the_rest_for_each_batch() -> None:
    source = dummy(
        'data_filler { type: "gaussian" std: 2 } data_filler { type: "constant" value: 3 }'
    )
    assert source.shapes == ((50, 2), (4,))
    first, second = source.next(), source.next()
    assert first[1] is second[1]
    assert first[1].tolist() == [3, 3, 3, 3]
    assert not torch.equal(first[0], second[0])
    assert torch.cat([first[0], second[0]]).std() == pytest.approx(2, rel=0.25)


def test_without_fillers_all_is_zero_and_one_filler_is_for_all() -> None:
    assert not any(top.any() for top in dummy("").next())
    ones = dummy('data_filler { type: "constant" value: 1 }').next()
    assert all(top.eq(1).all() for top in ones)


def test_a_dummy_batch_depends_on_seed_top_and_batch_alone() -> None:
    fillers = 'data_filler { type: "uniform" min: 0 max: 1 }'
    data, labels = batches(dummy(fillers), 6)
    source = dummy(fillers)
    source.seek(3)
    np.testing.assert_array_equal(source.next()[0].numpy(), data[3])
    everything = [*data, *batches(dummy(fillers, 2), 6)[0], *labels]
    assert len({array.tobytes()[:16] for array in everything}) == 18


def test_fillers_that_are_not_one_a_top_are_refused() -> None:
    with pytest.raises(SurgeryError, match="has 3 data_filler for 2 tops"):
        dummy('data_filler { type: "constant" } ' * 3)


def test_shapes_that_are_not_one_a_top_are_refused() -> None:
    told = "dummy_data_param { shape { dim: 1 } shape { dim: 1 } shape { dim: 1 } }"
    with pytest.raises(SurgeryError, match="3 shapes for 2 tops"):
        DummySource(layer_of("DummyData", told), CPU, 1)
