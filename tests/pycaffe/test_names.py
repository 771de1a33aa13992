"""Every name of the real pycaffe is one of ours, module by module, class by class."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pycaffe_prune import pycaffe as caffe
from pycaffe_prune.formats import caffe_pb2
from pycaffe_prune.pycaffe import pycaffe
from tests.pycaffe import names_page

PAGE = Path(__file__).parents[2] / "docs" / "pycaffe-names.md"


@pytest.fixture(scope="module")
def theirs(real_outputs: Callable[[str], str]) -> names_page.Names:
    names: names_page.Names = json.loads(real_outputs("real_names"))
    return names


@pytest.mark.real_caffe
def test_no_name_is_missing(theirs: names_page.Names) -> None:
    assert names_page.missing(theirs) == []
    assert {"caffe", "caffe.Net", "caffe.io", "caffe._caffe.Blob"} <= theirs.keys()
    assert "_Net_get_id_name" in names_page.counted(theirs["caffe.pycaffe"])


@pytest.mark.real_caffe
def test_the_page_is_current(theirs: names_page.Names) -> None:
    if "SwishParameter" not in theirs["caffe.proto.caffe_pb2"]:
        pytest.skip("this Caffe is older than the one whose names are on the page")
    assert PAGE.read_text().strip() == names_page.page(theirs).strip(), "run make pycaffe-names"


@pytest.mark.real_caffe
def test_what_is_left_out_is_there_in_pycaffe_and_not_here(theirs: names_page.Names) -> None:
    for name in names_page.LEFT_OUT:
        places = [where for where, names in theirs.items() if name in names]
        assert places
        assert not any(name in names_page.here(where) for where in places)


def test_a_missing_name_is_found() -> None:
    assert names_page.missing({"caffe.Net": ["blobs", "blubs", "__init__"]}) == ["caffe.Net.blubs"]


def test_descriptors_have_their_old_names() -> None:
    found = caffe.proto.caffe_pb2
    assert found._NETPARAMETER is caffe_pb2.NetParameter.DESCRIPTOR
    assert found._V1LAYERPARAMETER_LAYERTYPE.values_by_name["DATA"].number == 5
    assert found._PHASE.values_by_name["TEST"].number == found.TEST


def test_names_of_a_net_are_properties_that_scripts_may_make(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "data" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 } } } '
        'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "c" }'
    )
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    tops = pycaffe._Net_get_id_name(caffe.Net._top_ids, "_own_tops")
    assert tops.fget is not None
    assert tops.fget(net) == net.top_names == {"data": ["a", "b"], "sum": ["c"]}
    assert tops.fget(net) is net._own_tops
    for name in ("blobs", "blob_loss_weights", "layer_dict", "params", "inputs", "outputs"):
        told = getattr(pycaffe, f"_Net_{name}")
        assert isinstance(told, property)
        assert told.fget is not None
        assert told.fget(net) == getattr(net, name)
