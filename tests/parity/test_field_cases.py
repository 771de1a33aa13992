"""Each field of a layer that the torch engine honours changes its outputs, as in Caffe."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.formats.caffe_pb2 import BlobProto, BlobShape, LayerParameter, NetParameter
from pycaffe_prune.formats.field_table import Status, field_table
from pycaffe_prune.net.graph import NetState
from pycaffe_prune.net.shapes import infer_shapes
from tests.parity.conftest import CaffeLayer
from tests.parity.field_cases import TWINS, Array, Twins

ELSEWHERE = {
    "DataParameter": "its fields say what is read: tests/parity/test_data.py",
    "HDF5DataParameter": "its fields say what is read: tests/engines/torch/data",
    "HDF5OutputParameter": "a file's name: tests/engines/test_trusted_layers.py",
    "ImageDataParameter": "its fields say what is read: tests/engines/torch/data",
    "LayerParameter": "what a layer is and reads; the others in tests/parity/solver_twins.py",
    "MemoryDataParameter": "arrays come from a program: tests/parity/test_memory_data.py",
    "TransformationParameter": "of images that are read: tests/parity/test_data.py",
    "WindowDataParameter": "its fields say what is read: tests/parity/test_window_data.py",
}


def test_each_field_that_the_torch_engine_honours_has_twins() -> None:
    table = field_table()
    honoured = {
        f"{message}.{name}"
        for message, rows in table.messages.items()
        if rows.types and message not in ELSEWHERE
        for row in rows.rows
        for name in row.fields
        if row.uses["torch"].status is Status.HONOURED
    }
    assert honoured == {name for name in TWINS if "(" not in name}


@pytest.fixture
def matrices(tmp_path: Path) -> dict[str, str]:
    """Infogain matrices by the words that stand for their paths."""
    paths = {}
    for name, values in (("ONE", np.eye(4)), ("OTHER", np.arange(16) / 16)):
        blob = BlobProto(shape=BlobShape(dim=[1, 1, 4, 4]), data=values.reshape(-1))
        paths[name] = str(tmp_path / name)
        Path(paths[name]).write_bytes(blob.SerializeToString())
    return paths


def in_torch(
    layer: LayerParameter, bottoms: Sequence[Array], params: Sequence[Array], phase: int
) -> list[Array]:
    net = NetParameter()
    for name, array in zip(layer.bottom, bottoms, strict=True):
        source = net.layer.add(name=f"input_{name}", type="Input", top=[name])
        source.input_param.shape.add(dim=array.shape)
    net.layer.append(layer)
    built = Net(net, NetState(phase))
    blobs = built.params.get("x", [])
    for blob, values in zip(blobs, params, strict=False):
        blob.data[...] = values
    built.fetch()
    for name, array in zip(layer.bottom, bottoms, strict=True):
        built.blobs[name].data[...] = array
    built.forward()
    found = [built.blobs[name].data.copy() for name in layer.top]
    found += [blob.data.copy() for blob in blobs]
    built.close()
    return found


def own_params(layer: LayerParameter, bottoms: Sequence[Array]) -> list[Array]:
    shapes = {name: array.shape for name, array in zip(layer.bottom, bottoms, strict=True)}
    random = np.random.default_rng(7)
    (around,) = infer_shapes([layer], shapes)
    return [random.uniform(0.5, 1.5, shape).astype(np.float32) for shape in around.params]


def are_alike(one: Sequence[Array], other: Sequence[Array]) -> bool:
    return all(
        mine.shape == theirs.shape and np.allclose(mine, theirs, rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(one, other, strict=True)
    )


@pytest.mark.real_caffe
@pytest.mark.parametrize("field", TWINS)
def test_two_values_of_a_field_are_told_apart_as_in_caffe(
    field: str, caffe_layer: CaffeLayer, matrices: dict[str, str]
) -> None:
    pair: Twins = TWINS[field]
    bottoms, outcomes = pair.arrays(), []
    for layer in pair.layers():
        if matrix := matrices.get(layer.infogain_loss_param.source):
            layer.infogain_loss_param.source = matrix
        params = [] if pair.filled else own_params(layer, bottoms)
        theirs = caffe_layer(layer, bottoms, params, (), pair.phase)
        wanted = [*theirs.tops, *theirs.params]
        ours = in_torch(layer, bottoms, params, pair.phase)
        if pair.kind == "Dropout":  # other numbers are drawn
            wanted, ours = ([np.unique(top) for top in tops] for tops in (wanted, ours))
        assert are_alike(ours, wanted), text_format.MessageToString(layer)
        outcomes.append(wanted)
    one, other = outcomes
    assert len(one) != len(other) or not are_alike(one, other), "Caffe looks at it not"
