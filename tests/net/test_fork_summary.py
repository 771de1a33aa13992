from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.carried import parse_text
from pycaffe_prune.net.fork_summary import ForkUse, fork_uses

NET = """
default_forward_type: FLOAT16
layer { name: "a" type: "Permute" permute_param { order: 0 } }
layer { name: "b" type: "Permute" permute_param { order: 0 own: 1 } }
layer { name: "c" type: "Convolution" convolution_param { num_ouput: 3 engine: MKL2017 } }
layer { name: "d" type: "ReLU6" }
layer { name: "e" type: "Own" own { a: 1 } own { a: 2 } }
"""


def test_each_type_and_field_that_caffe_does_not_know_is_told_with_its_layers() -> None:
    net = parse_text(NET, NetParameter())
    assert fork_uses(net, net.layer) == tuple(
        ForkUse(what=what, understood=understood, layers=layers)
        for what, understood, layers in (
            ("field 'default_forward_type'", False, ()),
            ("type Permute", True, ("a", "b")),
            ("field 'permute_param' of Permute", True, ("a",)),
            ("field 'permute_param' of Permute", False, ("b",)),
            (
                "field 'convolution_param.num_ouput' (did you mean 'num_output'?) of Convolution",
                False,
                ("c",),
            ),
            ("field 'convolution_param.engine: MKL2017' of Convolution", True, ("c",)),
            ("type ReLU6", True, ("d",)),
            ("field 'own' of Own", False, ("e",)),
        )
    )


def test_a_net_of_caffe_s_own_has_nothing_to_tell() -> None:
    net = parse_text('layer { name: "a" type: "LSTM" relu_param { } }', NetParameter())
    assert fork_uses(net, net.layer) == ()
