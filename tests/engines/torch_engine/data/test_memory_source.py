import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pycaffe_prune.engines.torch_engine.data.memory_source import (
    DummySource,
    InputSource,
    MemorySource,
)
from pycaffe_prune.errors import DataError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from tests.engines.torch_engine.data.datums import batches

CPU = torch.device("cpu")


def layer_of(kind: str, told: str) -> LayerParameter:
    text = f'name: "data" type: "{kind}" top: "data" top: "label" {told}'
    return text_format.Parse(text, LayerParameter())


INPUT = layer_of("Input", "input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } }")
MEMORY = layer_of(
    "MemoryData", "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 }"
)


def test_an_input_holds_zeros_and_then_what_is_put_in() -> None:
    source = InputSource(INPUT, CPU)
    assert source.shapes == ((2, 3), (2,))
    assert not any(top.any() for top in source.next())
    source.set("data", np.arange(6.0).reshape(2, 3))
    source.set(1, torch.tensor([7, 8]))
    for _ in range(2):
        data, label = source.next()
        assert (data.tolist(), label.tolist()) == ([[0, 1, 2], [3, 4, 5]], [7, 8])
        assert data.dtype == label.dtype == torch.float32


def test_what_is_written_into_an_input_stays_as_in_pycaffe() -> None:
    source = InputSource(INPUT, CPU)
    source.next()[0].numpy()[...] = 4
    assert source.next()[0].eq(4).all()


@pytest.mark.parametrize("source", [InputSource(INPUT, CPU), MemorySource(MEMORY, CPU)])
def test_values_that_do_not_fit_are_refused(source: InputSource | MemorySource) -> None:
    with pytest.raises(DataError, match="top 'label' is 2, the values are 3;"):
        source.set("label", np.zeros(3, np.float32))
    with pytest.raises(DataError, match="no top 'labels'; its tops: data, label"):
        source.set("labels", np.zeros(2, np.float32))
    with pytest.raises(DataError, match="no top 2"):
        source.set(2, np.zeros(2, np.float32))


def test_an_input_without_a_shape_is_refused() -> None:
    with pytest.raises(DataError, match="does not tell the shape"):
        InputSource(layer_of("Input", ""), CPU)


def test_memory_is_gone_through_again_and_again() -> None:
    source = MemorySource(MEMORY, CPU)
    source.set("data", np.arange(18.0).reshape(6, 1, 1, 3))
    source.set("label", np.arange(6))
    source.seek(1)
    _, labels = batches(source, 4)
    assert np.concatenate(labels).tolist() == [2, 3, 4, 5, 0, 1, 2, 3]


def test_memory_that_lacks_something_is_refused() -> None:
    source = MemorySource(MEMORY, CPU)
    with pytest.raises(DataError, match="lacks data: set each of its tops"):
        source.next()
    source.set("data", np.zeros((4, 1, 1, 3)))
    with pytest.raises(DataError, match="lacks data"):
        source.next()
    source.set("label", np.zeros(2))
    with pytest.raises(DataError, match="same number"):
        source.next()


def test_memory_without_sizes_is_refused() -> None:
    with pytest.raises(DataError, match="must be given and positive"):
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
    with pytest.raises(DataError, match="has 3 data_filler for 2 tops"):
        dummy('data_filler { type: "constant" } ' * 3)


def test_shapes_that_are_not_one_a_top_are_refused() -> None:
    told = "dummy_data_param { shape { dim: 1 } shape { dim: 1 } shape { dim: 1 } }"
    with pytest.raises(SurgeryError, match="3 shapes for 2 tops"):
        DummySource(layer_of("DummyData", told), CPU, 1)
