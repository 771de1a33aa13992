"""The judge of single layers: the real Caffe."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from tests.caffe_process import CaffeProcess

Array = NDArray[np.float32]


@dataclass(frozen=True)
class LayerRun:
    """What one forward and one backward pass of a layer made."""

    tops: list[Array]
    bottom_diffs: list[Array]
    param_diffs: list[Array]
    params: list[Array]
    """The parameters afterwards: BatchNorm changes its own."""


CaffeLayer = Callable[..., LayerRun]
"""``(layer, bottoms, params=(), top_diffs=(), phase=TRAIN)``: see `caffe_layer`."""


@pytest.fixture(scope="session")
def caffe_layer(
    caffe_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CaffeLayer]:
    """Run a layer forward and backward; one Caffe process serves all calls.

    The layer is a LayerParameter with its bottoms and tops, which may be one and the same. Each
    bottom becomes an Input layer. ``params`` may be empty: then the fillers' values stay.
    ``top_diffs`` gives a gradient per top, None (or nothing) for one that keeps what Caffe gives
    it: its loss weight. A layer that states ``propagate_down`` gets gradients there only, and only
    if it has a loss weight; every other one gets them for all bottoms. A failed CHECK is an
    AssertionError with Caffe's words.
    """
    folder = tmp_path_factory.mktemp("caffe")
    script = Path(__file__).with_name("layer_with_caffe.py")
    process = CaffeProcess(caffe_python, script, folder)
    out = folder / "out.npz"

    def run(
        layer: LayerParameter,
        bottoms: Sequence[Array],
        params: Sequence[Array] = (),
        top_diffs: Sequence[Array | None] = (),
        phase: int = 0,
    ) -> LayerRun:
        (folder / "net.prototxt").write_text(text_format.MessageToString(_net(layer, bottoms)))
        arrays = {f"param:{index}": array for index, array in enumerate(params)}
        arrays |= {f"data:{name}": a for name, a in zip(layer.bottom, bottoms, strict=True)}
        given = zip(layer.top, top_diffs, strict=False)
        arrays |= {f"diff:{name}": diff for name, diff in given if diff is not None}
        np.savez(folder / "arrays.npz", allow_pickle=False, **arrays)
        process.run(
            {
                "net": str(folder / "net.prototxt"),
                "phase": phase,
                "arrays": str(folder / "arrays.npz"),
                "out": str(out),
            }
        )
        with np.load(out) as found:
            indices = [key.partition(":")[2] for key in found.files if key.startswith("param:")]
            return LayerRun(
                [found[f"data:{name}"] for name in layer.top],
                [found[f"diff:{name}"] for name in layer.bottom],
                [found[f"param_diff:{index}"] for index in indices],
                [found[f"param:{index}"] for index in indices],
            )

    yield run
    process.stop()


def _net(layer: LayerParameter, bottoms: Sequence[Array]) -> NetParameter:
    net = NetParameter(name="layer", force_backward=not layer.propagate_down)
    wants = list(layer.propagate_down) or [False] * len(bottoms)
    for name, array, want in zip(layer.bottom, bottoms, wants, strict=True):
        source = net.layer.add(name=f"input_{name}", type="Input", top=[name])
        if want:  # Caffe goes back to what can learn only
            source.type = "Parameter"
        shaped = source.parameter_param.shape if want else source.input_param.shape.add()
        shaped.dim.extend(array.shape)
    net.layer.append(layer)
    return net


CaffeSolver = Callable[..., dict[str, Array]]
"""``(solver, task, **what the task needs)``: see `caffe_solver`."""


@pytest.fixture(scope="session")
def caffe_solver(
    caffe_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CaffeSolver]:
    """Run a solver prototxt, from its own folder; one Caffe process serves all calls.

    The tasks and their answers are those of solver_with_caffe.py.
    """
    folder = tmp_path_factory.mktemp("caffe_solver")
    script = Path(__file__).with_name("solver_with_caffe.py")
    process = CaffeProcess(caffe_python, script, folder)
    out = folder / "out.npz"

    def run(solver: Path, task: str, **needs: object) -> dict[str, Array]:
        process.run({"solver": str(solver), "task": task, "out": str(out)} | needs)
        with np.load(out) as found:
            return dict(found)

    yield run
    process.stop()


Brought = list[Array]
"""Per top of a data layer what it held, batch after batch."""

CaffeData = Callable[..., Brought]
"""``(layer, phase=TEST, forwards=4)``: see `caffe_data`."""


@pytest.fixture(scope="session")
def caffe_data(caffe_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaffeData]:
    """What each top of a layer holds in the real Caffe; one Caffe process serves all calls."""
    folder = tmp_path_factory.mktemp("caffe_data")
    process = CaffeProcess(caffe_python, Path(__file__).with_name("data_with_caffe.py"), folder)

    def run(layer: LayerParameter, phase: int = TEST, forwards: int = 4) -> Brought:
        net, out = folder / "net.prototxt", folder / "out.npz"
        net.write_text(text_format.MessageToString(NetParameter(layer=[layer])))
        process.run({"net": str(net), "phase": phase, "forwards": forwards, "out": str(out)})
        with np.load(out) as found:
            return [found[name] for name in layer.top]

    yield run
    process.stop()
