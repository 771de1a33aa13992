"""What holds for the whole process: modes, devices, ranks, the list of types, clocks."""

import time
from collections.abc import Iterator

import pytest
import torch

from pycaffe_prune import pycaffe as caffe
from pycaffe_prune.engines.torch.data.sources import DATA_TYPES
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.graph import NetState
from pycaffe_prune.pycaffe.modes import MODES


@pytest.fixture(autouse=True)
def _modes() -> Iterator[None]:
    yield
    MODES.gpu, MODES.device_id = False, 0


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for use in (caffe.set_mode_gpu, lambda: caffe.set_device(0)):
        with pytest.raises(PruneError, match=r"sees 0; .*caffe\.set_mode_cpu"):
            use()
    assert MODES.device.type == "cpu"
    caffe.set_mode_cpu()


def test_the_gpu_that_was_chosen_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    caffe.set_device(1)
    assert MODES.device == torch.device("cpu")
    caffe.set_mode_gpu()
    assert MODES.device == torch.device("cuda", 1)
    with pytest.raises(PruneError, match="no GPU 2"):
        caffe.set_device(2)
    caffe.set_mode_cpu()
    assert MODES.device == torch.device("cpu")


def test_one_solver_trains_alone() -> None:
    assert (caffe.solver_count(), caffe.solver_rank(), caffe.has_nccl()) == (1, 0, False)
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(True)
    for use in (
        lambda: caffe.set_solver_count(2),
        lambda: caffe.set_solver_rank(1),
        lambda: caffe.NCCL(None, ""),
    ):
        with pytest.raises(PruneError, match="by NCCL, which this caffe has not"):
            use()


@pytest.mark.parametrize("kind", caffe.layer_type_list())
def test_every_type_of_the_list_is_known_to_nets(kind: str) -> None:
    """Whatever such a layer lacks is named; it is not the type that is."""
    net = NetParameter()
    net.layer.add(name="data", type="Input", top=["data"]).input_param.shape.add(dim=[2, 3, 5, 5])
    layer = net.layer.add(name="layer", type=kind, top=["top"])
    if kind not in DATA_TYPES | {"Parameter"}:
        layer.bottom.append("data")
    said = ""
    try:
        caffe.Net._of(net, NetState(caffe.TEST))
    except (PruneError, ImportError, ValueError, AttributeError) as error:
        said = str(error)
    assert "does not have" not in said
    assert "no data layer of type" not in said


def test_a_clock_counts_milliseconds() -> None:
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    time.sleep(0.01)
    timer.start()  # it runs already
    timer.stop()
    elapsed = timer.ms
    assert 10 <= elapsed < 10_000
    assert timer.ms == elapsed
    timer.start()
    assert timer.ms < elapsed + 10_000
