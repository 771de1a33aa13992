from collections.abc import Callable
from pathlib import Path

import pytest

from pycaffe_prune.convert.definitions import model_net, with_definitions
from pycaffe_prune.convert.deploy import to_deploy
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel
from pycaffe_prune.formats.carried import carried_fields, parse_text
from pycaffe_prune.formats.forks import fork_part
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.net.shapes import infer_shapes

NetOf = Callable[[str], NetParameter]
WeightsFor = Callable[..., Caffemodel]

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 4 } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" include { phase: TEST }
  inner_product_param { num_output: 2 } }
"""


def names_only(model: Caffemodel) -> Caffemodel:
    return Caffemodel(
        tuple(
            Layer(LayerParameter(name=layer.name), layer.blobs)
            for layer in model.layers
            if layer.blobs
        )
    )


def test_definitions_come_back_to_weights_that_lost_them(
    net_of: NetOf, weights_for: WeightsFor
) -> None:
    net = net_of(NET)
    model = weights_for(net)
    with pytest.raises(SurgeryError, match="give the prototxt with --net"):
        model_net(names_only(model))
    restored = with_definitions(names_only(model), net)
    assert [(layer.name, layer.type) for layer in restored.layers] == [
        ("data", "Input"), ("ip1", "InnerProduct"), ("ip2", "InnerProduct")
    ]  # fmt: skip
    assert restored.net == NetParameter(name="small")
    for before, after in zip(model.layers, restored.layers, strict=True):
        assert all(old is new for old, new in zip(before.blobs, after.blobs, strict=True))


def test_the_rules_that_chose_a_files_layers_do_not_choose_again(
    net_of: NetOf, weights_for: WeightsFor
) -> None:
    net = model_net(weights_for(net_of(NET)))
    assert [layer.name for layer in net.layer] == ["data", "ip1", "ip2"]
    assert not any(layer.include for layer in net.layer)


def test_splits_of_splits_are_taken_out_and_a_users_own_split_stays(net_of: NetOf) -> None:
    net = net_of(
        'layer { name: "data" type: "Input" top: "data" }'
        'layer { name: "data_data_0_split" type: "Split" bottom: "data" '
        'top: "data_data_0_split_0" top: "data_data_0_split_1" }'
        'layer { name: "own" type: "Split" bottom: "data_data_0_split_0" top: "a" top: "b" }'
        'layer { name: "relu" type: "ReLU" bottom: "data_data_0_split_1" top: "data" }'
        'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "data" top: "sum" }'
    )
    found = model_net(Caffemodel(tuple(Layer(layer) for layer in net.layer)))
    assert [(layer.name, [*layer.bottom]) for layer in found.layer] == [
        ("data", []), ("own", ["data"]), ("relu", ["data"]), ("sum", ["a", "data"])
    ]  # fmt: skip


CASES = Path(__file__).parents[1] / "cases"


def test_a_fork_s_field_of_known_number_has_its_name_in_the_prototxt(tmp_path: Path) -> None:
    net = to_deploy(model_net(read_caffemodel(CASES / "fork_permute.caffemodel")))
    write_prototxt(tmp_path / "deploy.prototxt", net)
    *_, permute = read_net(tmp_path / "deploy.prototxt").layer
    assert (permute.name, permute.type) == ("perm", "Permute")
    assert list(fork_part(permute).permute_param.order) == [0, 2, 3, 1]


def test_a_fork_s_field_of_unknown_number_is_never_left_out(tmp_path: Path) -> None:
    net = model_net(read_caffemodel(CASES / "fork_conv_field.caffemodel"))
    with pytest.raises(FormatError, match=r"layer 'c' .*'convolution_param\.22'"):
        write_prototxt(tmp_path / "net.prototxt", to_deploy(net))
    (*_, convolution) = infer_shapes(to_deploy(net).layer)
    assert "'convolution_param.22'" in (convolution.problem or "")


def test_a_deploy_net_keeps_what_its_layers_carry() -> None:
    text = """
        layer { name: "d" type: "Input" top: "d" input_param { shape { dim: [1, 2, 4, 4] } } }
        layer { name: "b" type: "BatchNorm" bottom: "d" top: "b"
                batch_norm_param { scale_filler { value: 1 } } }
        layer { name: "u" type: "Own" bottom: "b" top: "u" own_param { a: 1 } }
    """
    deploy = to_deploy(parse_text(text, NetParameter()))
    assert [field.full_name for layer in deploy.layer for field in carried_fields(layer)] == [
        "batch_norm_param.scale_filler",
        "own_param",
    ]
