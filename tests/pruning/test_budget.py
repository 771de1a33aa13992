from pathlib import Path

import pytest
from hypothesis import given, settings

from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.pruning.budget import dense_amount, parse_budget
from pycaffe_prune.pruning.sizes import model_sizes
from pycaffe_prune.share import share_root
from tests.pruning.random_nets import nets, random_weights

PROTOTXT = share_root() / "prototxt"


@settings(max_examples=15)
@given(nets())
def test_a_definition_alone_tells_what_its_dense_model_takes(net: NetParameter) -> None:
    for layer in net.layer:
        layer.phase = 0  # as Caffe saves it
    size = model_sizes(net, random_weights(net, 0)).whole
    assert dense_amount(net, "parameters") == size.parameters
    assert dense_amount(net, "macs") == size.macs
    assert dense_amount(net, "bytes") == size.stored_bytes["caffemodel"]


def test_a_budget_is_a_number_or_a_share() -> None:
    assert parse_budget("parameters=26000") == ("parameters", 26_000)
    assert parse_budget("bytes=1e5") == ("bytes", 100_000)
    assert parse_budget("macs=0.1") == ("macs", 0.1)
    for wrong in ("macs", "macs=", "weights=3", "bytes=0", "bytes=-1", "macs=1.5", "macs=nan"):
        with pytest.raises(FormatError, match=f"'{wrong}' is no budget"):
            parse_budget(wrong)


def test_a_size_that_the_prototxt_does_not_tell_is_refused() -> None:
    net = read_net(PROTOTXT / "lenet" / "train_val.prototxt")
    with pytest.raises(SurgeryError, match="shape of the blob 'data'"):
        dense_amount(net, "parameters")
    assert dense_amount(net, "parameters", {"data": (1, 1, 28, 28)}) == 431_080


def test_bytes_are_those_of_a_file_that_caffe_saved(data_dir: Path) -> None:
    net = read_net(PROTOTXT / "lenet" / "train_val.prototxt")
    model = read_caffemodel(data_dir / "zoo" / "lenet" / "lenet_iter_10000.caffemodel")
    inputs = {"data": (64, 1, 28, 28)}
    saved = model_sizes(net, model, inputs).whole
    assert dense_amount(net, "bytes", inputs) == saved.stored_bytes["caffemodel"]
