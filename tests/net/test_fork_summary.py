from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.carried import parse_text
from pycaffe_prune.net.fork_summary import ForkStatus, ForkUse, fork_uses

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
        ForkUse(what=what, status=ForkStatus(status), layers=layers)
        for what, status, layers in (
            ("field 'default_forward_type'", "unknown", ()),
            ("type Permute", "known", ("a", "b")),
            ("field 'permute_param' of Permute", "known", ("a",)),
            ("field 'permute_param' of Permute", "unknown", ("b",)),
            (
                "field 'convolution_param.num_ouput' (did you mean 'num_output'?) of Convolution",
                "unknown",
                ("c",),
            ),
            ("field 'convolution_param.engine: MKL2017' of Convolution", "known", ("c",)),
            ("type ReLU6", "known", ("d",)),
            ("type Own", "unknown", ("e",)),
            ("field 'own' of Own", "unknown", ("e",)),
        )
    )


def test_a_net_of_caffe_s_own_has_nothing_to_tell() -> None:
    net = parse_text('layer { name: "a" type: "LSTM" relu_param { } }', NetParameter())
    assert fork_uses(net, net.layer) == ()


def test_what_a_fork_is_known_to_have_and_nothing_reads_is_carried() -> None:
    net = parse_text(
        """
        layer { name: "d" type: "AnnotatedData" top: "data" top: "label"
          transform_param { crop_size: 3 resize_param { height: 300 pad_mode: MIRRORED } own: 1 }
          annotated_data_param { batch_sampler { max_sample: 1 } anno_type: BBOX } }
        layer { name: "l" type: "MultiBoxLoss" multibox_loss_param { mining_type: MAX_NEGATIVE } }
        """,
        NetParameter(),
    )
    assert [(use.what, use.status.value) for use in fork_uses(net, net.layer)] == [
        ("type AnnotatedData", "carried"),
        ("field 'annotated_data_param' of AnnotatedData", "carried"),
        ("field 'transform_param.resize_param' of AnnotatedData", "carried"),
        ("field 'transform_param.own' of AnnotatedData", "unknown"),
        ("type MultiBoxLoss", "known"),
        ("field 'multibox_loss_param' of MultiBoxLoss", "known"),
    ]
