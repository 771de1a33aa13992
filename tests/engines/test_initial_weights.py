"""What a run begins with: files in order, in both of Caffe's forms, each told."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.initial_weights import require_use
from pycaffe_prune.engines.run import train
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.formats.tensors import write_npz


def ignore(event: Event) -> None:
    """An observer that looks away."""


def inner_product(name: str, outputs: int, inputs: int, value: float) -> Layer:
    blobs = np.full((outputs, inputs), value, np.float32), np.full(outputs, value, np.float32)
    return Layer(LayerParameter(name=name, type="InnerProduct"), blobs)


def write(path: Path, *layers: Layer) -> Path:
    write = write_hdf5_weights if path.suffix == ".h5" else write_caffemodel
    write(path, Caffemodel(layers))
    return path


@pytest.fixture
def still(make_solver, request_for):
    """A request that leaves all weights as they begin."""
    return request_for(make_solver(settings="base_lr: 0"), max_iter=1)


def final(folder: Path) -> dict[str, float]:
    """One value of each layer after the run."""
    model = read_caffemodel(folder / "final.caffemodel")
    return {layer.name: float(layer.blobs[0].flat[0]) for layer in model.layers if layer.blobs}


def test_later_files_overwrite_layers_of_the_same_names(tmp_path: Path, still, engine) -> None:
    first = write(
        tmp_path / "a.caffemodel", inner_product("ip1", 20, 784, 1), inner_product("ip2", 10, 20, 1)
    )
    second = write(
        tmp_path / "b.caffemodel.h5", inner_product("ip1", 20, 784, 2), inner_product("no", 3, 3, 2)
    )
    events: list[Event] = []
    run = replace(still, weights=first, more_weights=(second,))
    result = train(run, tmp_path / "run", engine, events.append)
    assert final(tmp_path / "run") == {"ip1": 2, "ip2": 1}
    told = [event.message for event in events if event.event == "weights"]
    assert told == [
        "a.caffemodel: copied ip1, ip2",
        "b.caffemodel.h5: copied ip1; not in the net: no",
    ]
    assert [(file.copied, file.unused) for file in result.loaded] == [
        (("ip1", "ip2"), ()),
        (("ip1",), ("no",)),
    ]
    other_order = replace(still, weights=second, more_weights=(first,))
    with pytest.raises(FormatError, match="another run: other weights"):
        train(other_order, tmp_path / "run", engine, ignore)
    train(other_order, tmp_path / "other", engine, ignore)
    assert final(tmp_path / "other") == {"ip1": 1, "ip2": 1}


def test_hdf5_and_binary_weights_give_the_same_run(tmp_path: Path, request_for, engine) -> None:
    base = request_for(max_iter=3)
    train(base, tmp_path / "base", engine, ignore)
    binary = tmp_path / "base" / "final.caffemodel"
    write_hdf5_weights(tmp_path / "w.caffemodel.h5", read_caffemodel(binary))
    runs = [
        train(replace(base, weights=weights), tmp_path / name, engine, ignore)
        for name, weights in (("b", binary), ("h", tmp_path / "w.caffemodel.h5"))
    ]
    assert runs[0].weights_sha256 == runs[1].weights_sha256


def test_layers_that_no_file_fills_are_told_in_log_and_result(
    tmp_path: Path, still, engine
) -> None:
    weights = write(tmp_path / "w.caffemodel", inner_product("ip1", 20, 784, 1))
    result = train(replace(still, weights=weights), tmp_path / "run", engine, ignore)
    assert result.new_layers == ("ip2",)
    lines = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert ["ip2"] in [line.get("new") for line in lines]


def test_the_weights_that_a_solver_names_are_loaded_first(
    tmp_path: Path, make_solver, request_for, engine
) -> None:
    solver = make_solver(settings="base_lr: 0 weights: 'w/a.caffemodel, w/b.caffemodel'")
    folder = solver.parent / "w"
    folder.mkdir()
    write(
        folder / "a.caffemodel", inner_product("ip1", 20, 784, 1), inner_product("ip2", 10, 20, 1)
    )
    write(folder / "b.caffemodel", inner_product("ip2", 10, 20, 2))
    train(request_for(solver, max_iter=1), tmp_path / "run", engine, ignore)
    assert final(tmp_path / "run") == {"ip1": 1, "ip2": 2}
    given = write(tmp_path / "c.caffemodel", inner_product("ip1", 20, 784, 3))
    train(request_for(solver, max_iter=1, weights=given), tmp_path / "on", engine, ignore)
    assert final(tmp_path / "on") == {"ip1": 3, "ip2": 2}
    (folder / "b.caffemodel").unlink()
    with pytest.raises(FormatError, match=r"'w/b\.caffemodel', which are neither here nor beside"):
        train(request_for(solver, max_iter=1), tmp_path / "none", engine, ignore)


def refused(path: Path, net: str, *layers: Layer) -> str:
    with pytest.raises(SurgeryError) as caught:
        require_use(path, Caffemodel(layers), text_format.Parse(net, NetParameter()), TRAIN, {})
    return str(caught.value)


NORMALISED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 } } }
layer { name: "bn1" type: "BatchNorm" bottom: "data" top: "bn1" }
"""


def test_nvidias_batchnorm_is_told_to_be_one() -> None:
    blobs = tuple(np.ones(shape, np.float32) for shape in ((4,), (4,), (1,), (4,), (4,)))
    layer = Layer(LayerParameter(name="bn1", type="BatchNorm"), blobs)
    told = refused(Path("w.caffemodel"), NORMALISED, layer)
    assert told.startswith("w.caffemodel: layer 'bn1' (BatchNorm) has 5 blobs, those of NVIDIA's")


def test_shapes_that_do_not_fit_are_told_both() -> None:
    blobs = tuple(np.ones(shape, np.float32) for shape in ((5,), (4,), (1,)))
    layer = Layer(LayerParameter(name="bn1", type="BatchNorm"), blobs)
    told = refused(Path("w.caffemodel"), NORMALISED, layer)
    assert "layer 'bn1', blob 0: the net says 4, the caffemodel holds 5" in told


def test_forms_that_caffe_does_not_load_are_refused(tmp_path: Path, still, torch_engine) -> None:
    write_npz(tmp_path / "w.npz", Caffemodel((inner_product("ip1", 20, 784, 1),)))
    with pytest.raises(FormatError, match=r"Caffe does not load; make a \.caffemodel of it with"):
        train(replace(still, weights=tmp_path / "w.npz"), tmp_path / "run", torch_engine, ignore)
